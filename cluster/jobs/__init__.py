"""Commands that run on a cluster as jobs, and the checks before they are sent."""
