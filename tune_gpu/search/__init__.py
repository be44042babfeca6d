"""R-Zero without Ray: the space, the tournament, the surrogate, the feasibility model, the proposals, and the evidence."""
