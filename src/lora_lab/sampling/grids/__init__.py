"""Grids of images: axes, layout, drawing."""
