"""LoRA Lab: train and compare Stable Diffusion LoRAs."""

__version__ = "0.1.0"
