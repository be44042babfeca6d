"""Errors, failures, atomic files and processes, for every other package."""
