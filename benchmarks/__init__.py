"""How fast LoRA Lab is, against bare PyTorch loops over the same modules and shapes."""
