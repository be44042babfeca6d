"""The typed records of a run's artifacts. One place reads each file, and one place writes it."""
