"""Cards that are made up, for real services."""
