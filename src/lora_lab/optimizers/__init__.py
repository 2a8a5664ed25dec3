"""Optimizers by name or class, and the learning rate that is at work in each of their steps."""

from lora_lab.optimizers.build import NAMES, Rates, build_optimizer, step_rates

__all__ = ["NAMES", "Rates", "build_optimizer", "step_rates"]
