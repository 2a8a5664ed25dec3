"""One training run: the step, the trainer, what happens beside it."""
