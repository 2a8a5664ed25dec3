"""What happens beside training, one concern a file."""

from lora_lab.callbacks.cost import Cost
from lora_lab.callbacks.dlr import DLR
from lora_lab.callbacks.estimate import Estimate
from lora_lab.callbacks.held_out_loss import HeldOutLoss
from lora_lab.callbacks.lora_export import LoRAExport
from lora_lab.callbacks.metrics_csv import MetricsCSV
from lora_lab.callbacks.nan_guard import NaNGuard
from lora_lab.callbacks.progress import Progress

__all__ = [
    "DLR",
    "Cost",
    "Estimate",
    "HeldOutLoss",
    "LoRAExport",
    "MetricsCSV",
    "NaNGuard",
    "Progress",
]
