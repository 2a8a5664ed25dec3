"""Where images are drawn."""

import torch

from lora_lab.errors import LabError


def choose_device(name: str) -> torch.device:
    """Where images are drawn.

    Raises:
        LabError: There is no such device.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available()}
    present["mps"] = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if present["cuda"] else "cpu")
    if not present[name]:
        raise LabError(
            f"sampling.device={name} is not there; "
            f"choose one of auto, {', '.join(key for key in present if present[key])}"
        )
    return torch.device(name)
