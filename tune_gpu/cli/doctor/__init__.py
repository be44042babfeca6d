"""Check this machine, with advice for each failed check."""
