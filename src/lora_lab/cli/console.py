"""The commands of the installed package: what ``python train.py`` and ``python sample.py`` do.

A wheel holds both files and ``conf/`` inside of the package; in a checkout, links stand for them.
"""

import runpy


def train() -> None:
    """``lora-lab-train``: trains a LoRA, or sweeps one setting and compares the values."""
    runpy.run_module("lora_lab.train", run_name="__main__", alter_sys=True)


def sample() -> None:
    """``lora-lab-sample``: draws grids of runs, or images from any kohya LoRA file."""
    runpy.run_module("lora_lab.sample", run_name="__main__", alter_sys=True)
