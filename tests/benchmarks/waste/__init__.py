"""Where time and memory go that are not measurement: each is a command that compares within one run and says how."""
