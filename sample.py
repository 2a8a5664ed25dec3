"""Draws the grids of a run or sweep, or images from any kohya LoRA file.

python sample.py run=<run or sweep folder> [key=value ...]
python sample.py lora=<file.safetensors> prompt="..."
python sample.py --help
"""

import sys
from pathlib import Path

from omegaconf import DictConfig

from lora_lab.cli.entry import run_command


def sample(config: DictConfig) -> None:
    """Draws; PyTorch is imported here, so that --help and wrong settings answer fast."""
    from lora_lab.cli.sample_command import sample_command
    from lora_lab.config import to_sample_config

    sample_command(to_sample_config(config))


if __name__ == "__main__":
    sys.exit(run_command(sample, "sample", Path(__file__).parent / "conf", sys.argv[1:]))
