"""The commands of this package: server, track, models."""
