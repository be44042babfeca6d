"""ray_tune."""
