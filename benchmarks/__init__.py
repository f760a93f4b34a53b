"""Benchmarks: each module measures ratios of things run side by side, prints a table and gives JSON."""
