"""TensorBoard and Weights & Biases: runs while they train, comparisons when they are judged."""
