"""Normalizing flows: affine coupling blocks on FrEIA."""
