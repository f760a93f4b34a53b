"""A study of settings over data sets: what selection sees on validation data against what the test says.

``python -m benchmarks quality`` (docs/quality.md).
"""
