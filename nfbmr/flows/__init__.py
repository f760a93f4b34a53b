"""Normalizing flows: affine coupling blocks that FrEIA's containers take as well."""
