"""One client for each protocol of a service. The failure of a request is a value, never a latency."""
