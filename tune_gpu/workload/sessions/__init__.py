"""Sessions of traffic: callers who arrive on their own, and inside their session wait, listen, think and go on."""
