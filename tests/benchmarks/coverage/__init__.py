"""How honest the intervals of `search/evidence.py` are: on recorded runs, and on simulated ones whose truth is known."""
