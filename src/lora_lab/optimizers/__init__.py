"""Optimizers by name or class, and the learning rate that is at work in each of their steps."""

from lora_lab.optimizers.build import Rates, averaged_weights, build_optimizer, step_rates
from lora_lab.optimizers.classes import check_optimizer, described, entry_of, find_class
from lora_lab.optimizers.skipping import StepLeftOut, leave_out_steps

__all__ = [
    "Rates",
    "StepLeftOut",
    "averaged_weights",
    "build_optimizer",
    "check_optimizer",
    "described",
    "entry_of",
    "find_class",
    "leave_out_steps",
    "step_rates",
]
