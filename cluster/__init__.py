"""Ray Train across workers, job submission and cluster definitions."""
