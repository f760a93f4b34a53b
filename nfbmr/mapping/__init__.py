"""Mapping networks between the source and the target domain."""
