"""A trained model behind HTTP: replicas on Ray Serve, and one process in front that browsers reach."""
