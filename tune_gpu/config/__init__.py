"""The settings of an experiment: schema, loader and what parameters make of them."""
