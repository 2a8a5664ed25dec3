"""Pure functions of arrays: paired inference, curves."""
