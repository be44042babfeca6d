"""memory_check."""
