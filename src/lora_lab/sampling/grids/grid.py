"""What a grid says: its header, its rows and columns, and what stands in each cell."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]
LAYOUT_SOURCES = ("images/fonts", "sampling/grids/layout", "sampling/grids/picture")


@dataclass(frozen=True)
class GridCell:
    """An image, or why there is none."""

    path: Path | None
    problem: str = ""
    key: str = ""
    """Of the image: with the same key the same image."""
    score: str = ""
    """What stands under the image; may be empty."""


@dataclass(frozen=True)
class GridRow:
    """One row of images."""

    label: str
    note: str
    """A second line in smaller letters; may be empty."""
    cells: tuple[GridCell, ...]
    is_base: bool = False


@dataclass(frozen=True)
class GridColumn:
    """The head of a column."""

    label: str
    note: str = ""
    is_base: bool = False


@dataclass(frozen=True)
class Grid:
    """All that a picture of a grid says."""

    title: str
    facts: tuple[tuple[str, str], ...]
    """(name, text), such as ("Prompt", "a portrait of zqx person"); a line or more each."""
    corner: str
    """What the rows differ in, above their labels."""
    columns: tuple[GridColumn, ...]
    rows: tuple[GridRow, ...]
    image_size: tuple[int, int]
    """Width and height of the images, in pixels."""

    def part(self, rows: Sequence[int], columns: Sequence[int], name: str) -> "Grid":
        """Some rows and columns of it, with a page's name behind the title."""
        chosen = tuple(
            replace(self.rows[r], cells=tuple(self.rows[r].cells[c] for c in columns)) for r in rows
        )
        title = f"{self.title} · {name}" if name else self.title
        heads = tuple(self.columns[c] for c in columns)
        return replace(self, title=title, rows=chosen, columns=heads)

    def key(self) -> str:
        """16 hex digits that two grids share if their pictures are the same."""
        values = asdict(self)
        text = json.dumps([values, layout_version()], sort_keys=True, default=_file_name)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _file_name(path: Path) -> str:
    return path.name


@cache
def layout_version() -> str:
    """Digest of the sources that pictures depend on."""
    digest = hashlib.sha256()
    for name in LAYOUT_SOURCES:
        digest.update((PACKAGE / f"{name}.py").read_bytes())
    return digest.hexdigest()
