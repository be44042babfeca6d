"""The memory of a vLLM engine, by vLLM's own start-up rules."""
