"""What R-Zero's guided form is composed of: how configurations become vectors, the surrogate, the feasibility model, the proposals."""
