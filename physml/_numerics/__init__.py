"""Numerics that know nothing of equations or networks; private to the package."""
