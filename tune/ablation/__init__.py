"""Ablations and comparisons: what they vary, the cells, and what these say."""
