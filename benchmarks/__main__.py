"""Measures speed and prints a table.

python -m benchmarks                       all of it, a few minutes
python -m benchmarks training start_up     some of it
python -m benchmarks sampling sampling.steps=10    with settings as for train.py
"""

import argparse
import logging
import sys

import torch

from benchmarks import sampling, start_up, training_step
from benchmarks.settings import train_settings
from benchmarks.table import BenchmarkRow, render

PARTS = ("training", "start_up", "sampling")


def main() -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure speed.")
    parser.add_argument("words", nargs="*", help=f"parts ({', '.join(PARTS)}) and key=value")
    parser.add_argument("--steps", type=int, default=100, help="training steps (100)")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of the rest (3)")
    options = parser.parse_intermixed_args()
    overrides = [word for word in options.words if "=" in word]
    parts = [word for word in options.words if "=" not in word] or list(PARTS)
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        parser.error(f"unknown part {unknown[0]}; there are {', '.join(PARTS)}")

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    threads = train_settings(overrides).trainer.threads
    torch.set_num_threads(threads or torch.get_num_threads())
    rows: list[BenchmarkRow] = []
    if "start_up" in parts:
        rows += start_up.measure(overrides, options.rounds)
    if "training" in parts:
        rows += training_step.measure(overrides, options.steps)
    if "sampling" in parts:
        rows += sampling.measure(overrides, options.rounds)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians\n")
    print(render(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
