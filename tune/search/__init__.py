"""Sweeps: search spaces, the study, and what it found."""
