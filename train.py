"""Trains a LoRA, or sweeps one setting and compares the values.

python train.py [key=value ...]
python train.py -m network.dim=2,8,32
python train.py --help
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from lora_lab.cli.entry import run_command

if TYPE_CHECKING:
    from lora_lab.cli.train_command import Outcome


def train(config: DictConfig) -> "Outcome":
    """Trains one LoRA; PyTorch is imported here, so that --help and wrong settings answer fast."""
    from lora_lab.cli.train_command import train_command

    return train_command(config)


if __name__ == "__main__":
    sys.exit(run_command(train, "train", Path(__file__).parent / "conf", sys.argv[1:]))
