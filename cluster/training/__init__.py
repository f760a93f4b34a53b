"""A run in the workers of Ray Train."""
