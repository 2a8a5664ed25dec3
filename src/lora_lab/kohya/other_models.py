"""What is no LoRA of Stable Diffusion 1.x is refused by its name, before anything is translated."""

from typing import Any

from lora_lab.errors import ConfigError
from lora_lab.kohya.values import is_empty, is_true

CHECKBOXES = {
    "sdxl": "SDXL",
    "sdxl_checkbox": "SDXL",
    "v2": "Stable Diffusion 2",
    "sd3_checkbox": "Stable Diffusion 3",
    "flux1_checkbox": "Flux.1",
    "lumina_checkbox": "Lumina",
    "anima_checkbox": "Anima",
    "hunyuan_image_checkbox": "HunyuanImage",
    "ss_v2": "Stable Diffusion 2",
}
"""Switch of the GUI or of sd-scripts -> the family it stands for."""
MODULES = {
    "networks.lora_sd3": "Stable Diffusion 3",
    "networks.lora_flux": "Flux.1",
    "networks.oft_flux": "Flux.1",
    "networks.lora_lumina": "Lumina",
    "networks.lora_anima": "Anima",
    "networks.lora_hunyuan_image": "HunyuanImage",
    "networks.lora_chroma": "Chroma",
}
"""network_module -> the family it is for."""
VERSIONS = {
    "sdxl": "SDXL",
    "sd_v2": "Stable Diffusion 2",
    "sd3": "Stable Diffusion 3",
    "flux": "Flux.1",
    "lumina": "Lumina",
    "chroma": "Chroma",
}
"""Beginning of ss_base_model_version -> the family."""
OTHER_TRAININGS = {
    "token_string": "Textual Inversion",
    "num_vectors_per_token": "Textual Inversion",
    "caption_metadata_filename": "fine-tuning",
    "latent_metadata_filename": "fine-tuning",
    "dataset_repeats": "fine-tuning",
}
"""A key that only settings of another tab have -> what the tab trains."""


def refuse_other_families(path: Any, fields: dict[str, Any]) -> None:
    """Refuse settings of another model or of another kind of training.

    Args:
        path: What the error names.
        fields: Keys and values of the file.

    Raises:
        ConfigError: They are for SDXL, SD 2, SD 3, Flux, DreamBooth, Textual Inversion and so on.
    """
    for name, family in CHECKBOXES.items():
        if is_true(fields.get(name)):
            raise _other_model(path, family, f"{name} is on")
    module = str(fields.get("network_module") or fields.get("ss_network_module") or "")
    kind = str(fields.get("LoRA_type") or "")
    if module in MODULES or kind.startswith(("Flux1", "SD3", "Lumina")):
        family = MODULES.get(module, kind)
        raise _other_model(path, family, f"it trains {module or kind}")
    version = str(fields.get("ss_base_model_version") or "")
    for beginning, family in VERSIONS.items():
        if version.startswith(beginning):
            raise _other_model(path, family, f"ss_base_model_version is {version}")
    tab = next((OTHER_TRAININGS[name] for name in OTHER_TRAININGS if name in fields), None)
    if tab is None and _is_dreambooth(fields):
        tab = "DreamBooth"
    if tab is not None:
        raise ConfigError(
            f"{path} holds settings of {tab}, which trains no LoRA; LoRA Lab trains LoRAs: save "
            "settings of the GUI's LoRA tab"
        )


def _is_dreambooth(fields: dict[str, Any]) -> bool:
    """The DreamBooth tab has a text encoder of its own kind, and no LoRA."""
    of_dreambooth = "stop_text_encoder_training" in fields or "learning_rate_te" in fields
    of_lora = {"LoRA_type", "network_dim", "network_module"} & fields.keys()
    return of_dreambooth and not of_lora and not is_empty(fields.get("learning_rate"))


def _other_model(path: Any, family: str, why: str) -> ConfigError:
    return ConfigError(
        f"{path} is for {family} ({why}); LoRA Lab trains LoRAs of Stable Diffusion 1.x: take "
        "settings that were made for it"
    )
