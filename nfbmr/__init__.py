"""Unsupervised visual defect detection: features once, flows once, numbers one can trust."""

__version__ = "0.1.0"
