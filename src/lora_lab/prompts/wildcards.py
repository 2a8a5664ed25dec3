"""Choices in a prompt: `{a|b|c}`, and `__name__` for a line of name.txt."""

import os
import random
import re
from dataclasses import dataclass, field
from pathlib import Path

from lora_lab.errors import LabError, clipped, offered, one_line
from lora_lab.files import read_text

_WILDCARD = re.compile(r"__([\w-]+(?:/[\w-]+)*)__")
_CHOICE = re.compile(r"\{([^{}]*\|[^{}]*)\}")
_ROUNDS = 100
_LONGEST = 100_000


@dataclass(frozen=True)
class Wildcards:
    """A folder of text files, one choice per line; lines that begin with # are comments.

    Args:
        folder: Holds `name.txt` for `__name__` and `group/name.txt` for `__group/name__`.
    """

    folder: Path
    _read: dict[str, list[str]] = field(default_factory=dict, compare=False, repr=False)

    def names(self) -> list[str]:
        """Names of all wildcards in the folder."""
        files = (path.relative_to(self.folder) for path in self.folder.rglob("*.txt"))
        return sorted(path.with_suffix("").as_posix() for path in files)

    def lines(self, name: str) -> list[str]:
        """The choices of a wildcard.

        Raises:
            LabError: There is no such file, it can't be read, or it has no choices.
        """
        if name not in self._read:
            self._read[name] = self._lines(name)
        return self._read[name]

    def _lines(self, name: str) -> list[str]:
        path = self.folder / f"{name}.txt"
        where = f"{one_line(path, 300)} for the wildcard {clipped(f'__{name}__')}"
        if not os.path.isfile(path):  # a name of any length
            names = offered(name, self.names())
            raise LabError(f"{where} is missing; there are: {names}")
        try:
            lines = read_text(path, encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise LabError(f"{where} can't be read ({reason})") from None
        choices = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not choices:
            raise LabError(f"{where} is empty: put one choice per line")
        return choices


def expand_choices(text: str, seed: int, wildcards: Wildcards | None = None) -> str:
    """Make the choices of a prompt: `{a|b|c}`, and `__name__` from the lines of name.txt.

    Choices may stand inside choices, and lines may name wildcards. `{a}` without a bar stays as it
    is, and so does `__name__` where there are no wildcards.

    Args:
        text: The prompt.
        seed: The same seed makes the same choices.
        wildcards: Where the choices of `__name__` are.

    Raises:
        LabError: A wildcard is unknown (only where `wildcards` is given).
    """
    choose = random.Random(seed)
    for _ in range(_ROUNDS):  # a wildcard that names itself ends here, or by the length
        before = text
        if wildcards is not None:
            text = _WILDCARD.sub(lambda m: choose.choice(wildcards.lines(m[1])), text)
        text = _CHOICE.sub(lambda m: choose.choice(m[1].split("|")).strip(), text)
        if text == before or len(text) > _LONGEST:
            break
    return text


def wildcards_of(text: str) -> list[str]:
    """The names of the wildcards that a prompt asks for, in order, each once."""
    return list(dict.fromkeys(match[1] for match in _WILDCARD.finditer(text)))
