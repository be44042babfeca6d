"""Start processes, guard them against being left behind, and count what they use."""
