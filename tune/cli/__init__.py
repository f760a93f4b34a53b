"""The commands of this package: sweep, ablate, compare, track verify."""
