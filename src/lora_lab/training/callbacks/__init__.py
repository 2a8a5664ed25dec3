"""What happens beside training, one concern a file."""

from lora_lab.training.callbacks.cost import Cost
from lora_lab.training.callbacks.dlr import DLR
from lora_lab.training.callbacks.estimate import Estimate
from lora_lab.training.callbacks.held_out_loss import HeldOutLoss
from lora_lab.training.callbacks.lora_export import LoRAExport
from lora_lab.training.callbacks.metrics_csv import MetricsCSV
from lora_lab.training.callbacks.nan_guard import NaNGuard
from lora_lab.training.callbacks.progress import Progress
from lora_lab.training.callbacks.samples import Samples
from lora_lab.training.callbacks.several_devices import GatherLosses, JoinSaves
from lora_lab.training.callbacks.stop import StopOnSignal

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
