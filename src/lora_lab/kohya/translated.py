"""What became of kohya's settings: taken over, without effect, or not to be expressed."""

from dataclasses import dataclass, field
from types import UnionType
from typing import Any, get_args

from lora_lab.config import TrainConfig
from lora_lab.config.convert import leaf_types
from lora_lab.errors import one_line
from lora_lab.kohya.values import as_float, is_number


@dataclass
class Translation:
    """kohya's settings as ours."""

    groups: dict[str, str] = field(default_factory=dict)
    """Config group -> choice, such as optimizer -> dadapt_adam."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Our key -> value."""
    taken: dict[str, str] = field(default_factory=dict)
    """kohya's name -> our key."""
    ignored: dict[str, str] = field(default_factory=dict)
    """kohya's name -> why it changes nothing."""
    impossible: dict[str, str] = field(default_factory=dict)
    """kohya's name -> why its value can't be expressed."""
    differs: dict[str, str] = field(default_factory=dict)
    """kohya's name -> what LoRA Lab does otherwise on purpose, with the reason."""
    untold: list[str] = field(default_factory=list)
    """kohya's names that the file can't tell, for which kohya's own defaults are taken."""
    to_give: dict[str, str] = field(default_factory=dict)
    """Our key that has to be given with the command -> why."""

    def put(self, key: str, value: Any, source: str) -> None:
        """Take a value over."""
        self.settings[key] = value
        self.taken[source] = f"{self.taken[source]}, {key}" if source in self.taken else key

    def take(self, key: str, value: Any, source: str, spelled: Any = None) -> None:
        """Take a value over in the type of our key; one that doesn't fit can't be expressed.

        Args:
            key: Ours.
            value: As it was read.
            source: kohya's name.
            spelled: As the file spells it, where that is not the value.
        """
        fitted = fitting(value, key)
        if fitted is None and value is not None:
            told = one_line(value if spelled is None else spelled, 60)
            self.impossible[source] = f"{told!r} is no value for {key}"
        else:
            self.put(key, fitted, source)


def fitting(value: Any, key: str) -> Any:
    """The value in the type of one of our keys, None where it doesn't fit."""
    kind = leaf_types(TrainConfig)[key]
    kinds = set(get_args(kind) if isinstance(kind, UnionType) else (kind,))
    if isinstance(value, list):
        right = list[float] in kinds and all(map(is_number, value))
        return [as_float(one) for one in value] if right else None
    if bool in kinds and isinstance(value, bool | int) and value in (0, 1):
        return bool(value)
    if is_number(value):
        if int in kinds and as_float(value).is_integer():
            return int(value)
        return as_float(value) if float in kinds else str(value) if str in kinds else None
    return str(value) if str in kinds and isinstance(value, str) else None
