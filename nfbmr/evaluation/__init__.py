"""Metrics with intervals, pictures and the report."""
