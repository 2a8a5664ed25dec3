"""`<lora:name:0.8>` in a prompt: which LoRAs it asks for, and the text without them."""

import re
from dataclasses import dataclass

_TAG = re.compile(r"<(\w+):([^>]+)>")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
LORA_TAGS = ("lora", "lyco")
"""`lyco` is what an extension of the web UI called LoHa and LoKr before `lora` read them."""


@dataclass(frozen=True)
class LoRATag:
    """A LoRA that a prompt asks for; weight 1 is as trained."""

    name: str
    """File name without its ending."""
    text_encoder: float
    """Weight of its text-encoder part."""
    unet: float
    """Weight of its UNet part."""


@dataclass(frozen=True)
class Networks:
    """What a prompt's tags ask for."""

    loras: tuple[LoRATag, ...]
    """In order; a LoRA may be named twice, its weights then add up."""
    problems: tuple[str, ...]
    """One line for each tag that can't be followed."""


def take_networks(text: str) -> tuple[str, Networks]:
    """Take the `<kind:name:...>` tags out of a prompt. Never fails.

    `<lora:name>` is weight 1, `<lora:name:w>` weight w, `<lora:name:t:u>` weight t for the text
    encoder and u for the UNet, also as `te=t` and `unet=u`.

    Returns:
        The prompt without any tag, and what the tags ask for.
    """
    loras: list[LoRATag] = []
    problems: list[str] = []

    def found(match: re.Match[str]) -> str:
        if match[1] not in LORA_TAGS:
            problems.append(f"{match[0]} in a prompt: only <lora:name:weight> is known")
        elif (tag := _lora(match[2])) is None:
            problems.append(f"{match[0]} in a prompt must be <lora:name:weight>, weight a number")
        else:
            loras.append(tag)
        return ""

    rest = _TAG.sub(found, text)
    return rest, Networks(tuple(loras), tuple(problems))


def _lora(arguments: str) -> LoRATag | None:
    """What stands behind `lora:`; None where it can't be understood."""
    positional, named = [], {}
    for part in arguments.split(":"):
        # Stripped here: float() refuses some of the spaces that strip() takes away.
        key, sign, value = (text.strip() for text in part.partition("="))
        if sign and key in ("te", "unet"):
            named[key] = value
        else:
            positional.append(part.strip())
    name, *weights = positional or [""]
    texts = [*weights, named.get("te"), named.get("unet")]
    if not name or len(weights) > 2 or any(_bad(text) for text in texts):
        return None
    text_encoder = float(named.get("te") or (weights[0] if weights else 1))
    unet = float(named.get("unet") or (weights[1] if len(weights) > 1 else text_encoder))
    return LoRATag(name, text_encoder, unet)


def _bad(text: str | None) -> bool:
    return text is not None and _NUMBER.fullmatch(text) is None
