"""The files of a run: where they are, what is in them, and what is left out of them."""
