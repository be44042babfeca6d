"""Where the words of sessions come from: one source each in a file."""
