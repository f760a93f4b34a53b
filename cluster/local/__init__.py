"""A private cluster on this machine, a process a node."""
