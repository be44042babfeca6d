"""A run: build the Tuner, run or resume it, summarise it."""
