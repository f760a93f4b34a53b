"""Ray Tune and Optuna: search spaces, sweeps, ablations and their reports."""
