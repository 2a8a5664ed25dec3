"""What happens beside training, one concern a file."""

from lora_lab.callbacks.cost import Cost
from lora_lab.callbacks.dlr import DLR
from lora_lab.callbacks.estimate import Estimate
from lora_lab.callbacks.held_out_loss import HeldOutLoss
from lora_lab.callbacks.lora_export import LoRAExport
from lora_lab.callbacks.metrics_csv import MetricsCSV
from lora_lab.callbacks.nan_guard import NaNGuard
from lora_lab.callbacks.progress import Progress
from lora_lab.callbacks.ranks import GatherLosses, JoinSaves
from lora_lab.callbacks.samples import Samples
from lora_lab.callbacks.stop import StopOnSignal

__all__ = [
    "DLR",
    "Cost",
    "Estimate",
    "GatherLosses",
    "HeldOutLoss",
    "JoinSaves",
    "LoRAExport",
    "MetricsCSV",
    "NaNGuard",
    "Progress",
    "Samples",
    "StopOnSignal",
]
