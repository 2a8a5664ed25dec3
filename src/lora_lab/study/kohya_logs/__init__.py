"""Comparisons made from the TensorBoard logs and settings of kohya's trainer."""
