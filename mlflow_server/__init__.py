"""MLflow: tracking client, server, registered models and promotion."""
