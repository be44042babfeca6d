"""Report a run as evidence for people."""
