"""Check this machine, with advice for each fault."""
