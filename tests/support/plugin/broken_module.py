"""A module that fails when it is imported."""

BROKEN = 1 / 0
