"""The commands, their output and their help."""
