"""A run as evidence for people: read, drawn, told."""
