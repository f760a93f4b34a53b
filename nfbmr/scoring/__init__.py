"""Error maps to image scores and decisions."""
