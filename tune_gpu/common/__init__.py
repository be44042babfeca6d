"""Errors, failures, atomic files and processes: what every package uses."""
