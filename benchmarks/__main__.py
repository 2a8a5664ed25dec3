"""Measures speed and prints tables.

python -m benchmarks                       all of it, half an hour on two cores
python -m benchmarks training start_up     some of it
python -m benchmarks sampling sampling.steps=10    with settings as for train.py
python -m benchmarks sweep --rounds 1      shorter
python -m benchmarks stack --figure docs/images/stacking.webp
"""

import argparse
import logging
import sys
from pathlib import Path

import torch

from benchmarks import sampling, stack_throughput, start_up, sweep, training_step
from benchmarks.settings import train_settings
from benchmarks.table import BenchmarkRow, render

PARTS = ("start_up", "training", "sampling", "stack", "sweep")
STEPS = 100


def main() -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure speed.")
    parser.add_argument("words", nargs="*", help=f"parts ({', '.join(PARTS)}) and key=value")
    told = f"steps of a run ({STEPS}; stack {stack_throughput.STEPS}, sweep {sweep.STEPS})"
    parser.add_argument("--steps", type=int, help=told)
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of all but training (3)")
    parser.add_argument("--figure", type=Path, help="WebP file that shows what stack measures")
    options = parser.parse_intermixed_args()
    overrides = [word for word in options.words if "=" in word]
    parts = [word for word in options.words if "=" not in word] or list(PARTS)
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        parser.error(f"unknown part {unknown[0]}; there are {', '.join(PARTS)}")
    if options.figure and "stack" not in parts:
        parser.error("--figure shows what the part stack measures: add it")

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    threads = train_settings(overrides).trainer.threads
    torch.set_num_threads(threads or torch.get_num_threads())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians")
    rows: list[BenchmarkRow] = []
    if "start_up" in parts:
        rows += start_up.measure(overrides, options.rounds)
    if "training" in parts:
        rows += training_step.measure(overrides, options.steps or STEPS)
    if "sampling" in parts:
        rows += sampling.measure(overrides, options.rounds)
    if rows:
        print(f"\n{render(rows)}", flush=True)
    if "stack" in parts:
        steps = options.steps or stack_throughput.STEPS
        found = stack_throughput.measure(overrides, steps, options.rounds)
        print(f"\n{stack_throughput.render_stacks(found)}", flush=True)
        if options.figure:
            stack_throughput.draw_stacks(found, options.figure)
    if "sweep" in parts:
        steps = options.steps or sweep.STEPS
        for table in sweep.measure(overrides, steps, options.rounds):
            print(f"\n{table}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
