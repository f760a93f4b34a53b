"""The stage loop, checkpoints and resuming."""
