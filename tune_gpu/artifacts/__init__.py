"""The files of a run: where they are, what they contain, and what is redacted."""
