"""What the device did meanwhile."""
