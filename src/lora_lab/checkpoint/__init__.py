"""A base checkpoint: where it lies, what is refused, its weights, the models built from it."""
