"""The comparison of a sweep: load, pair, decide, draw, report."""

from lora_lab.study.report.build import build_report

__all__ = ["build_report"]
