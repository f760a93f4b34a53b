"""A run's model as a folder that MLflow loads, and as a logged model on a server."""
