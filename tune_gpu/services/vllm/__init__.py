"""vLLM as a service: server, flags, warm start."""
