"""Searchers compared on landscapes that others measured: `python -m tests.benchmarks.searchers --help`."""
