"""Our own fields in a LoRA file's metadata: what kohya's `ss_*` fields have no word for."""

from lora_lab.config import TrainConfig
from lora_lab.config.convert import leaf_types

SETTINGS = "lora_lab.settings"
"""The settings that made the LoRA, as JSON."""
PATHS_GIVEN = "lora_lab.paths"
"""Which settings named a file, a folder or a class; what they named stays private."""
PATHS = (
    *("model.checkpoint", "model.merge", "network.weights", "optimizer._target_"),
    *("data.dir", "data.held_out_dir", "data.reg_dir", "data.cache_dir"),
)
"""Settings that name a place on the user's machine, or what is imported there."""
OF_THE_MACHINE = (
    *("model.allow_pickle", "trainer.accelerator", "trainer.devices", "trainer.threads"),
    *("trainer.attention", "trainer.compile", "trainer.matmul_precision"),
)
"""Settings of the machine that trained, which another machine chooses for itself."""
_SECTIONS = ("model", "data", "network", "optimizer", "schedule", "objective", "trainer")
_LOOSE = ("epochs", "save_every", "seed", "output_name")


def told_keys() -> list[str]:
    """The settings that a LoRA file tells and an import takes from one; no path is among them."""
    keys = [key for key in leaf_types(TrainConfig) if key.split(".")[0] in (*_SECTIONS, *_LOOSE)]
    return [key for key in keys if key not in (*PATHS, *OF_THE_MACHINE)]
