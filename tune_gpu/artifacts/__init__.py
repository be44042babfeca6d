"""The files of a run: their places, their content, and what is redacted."""
