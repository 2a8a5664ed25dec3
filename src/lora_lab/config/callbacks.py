"""What is done beside training: its settings."""

from dataclasses import dataclass


@dataclass
class CallbacksConfig:
    """What is done beside training."""

    held_out_loss: bool
    """Measure the loss on held-out images at every save; true or false."""
    keep_last_checkpoint: bool
    """Keep last.ckpt, which resuming needs, after the run is complete; true or false."""
    samples: bool
    """Draw three images at every save, to disk, TensorBoard and W&B; true or false."""
    progress: bool
    """Show a progress bar with DLR, loss and time left; true or false."""
