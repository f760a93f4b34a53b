"""Registered models: versions, gates, promotion and roll-back, drift."""
