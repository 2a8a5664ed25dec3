"""Text in pictures: which font has a letter, how wide a line is, where it may break.

DejaVu Sans (which matplotlib ships) has Latin, Greek, Cyrillic, Hebrew and Arabic; Noto Sans CJK
(SIL Open Font License, a package of its own) has Chinese, Japanese and Korean. Pillow shapes and
orders right-to-left text with Raqm.
"""

import importlib.util
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from fontTools.ttLib import TTFont
from PIL import ImageDraw, ImageFont

_FACES = (
    ("matplotlib", "mpl-data/fonts/ttf/DejaVuSans.ttf", "mpl-data/fonts/ttf/DejaVuSans-Bold.ttf"),
    ("noto_cjk_sans_jp_regular", "NotoSansCJKjp-Regular.otf", "NotoSansCJKjp-Regular.otf"),
)
"""(package, regular, bold): the first that has a letter draws it."""
_RIGHT_TO_LEFT = ("R", "AL")
_UNITS = re.compile(r"\s+|[^\s]")
LINE = 1.35
"""From one line to the next, in heights of letters."""


@dataclass(frozen=True)
class Letters:
    """One size of text."""

    size: int
    """Pixels."""
    bold: bool = False

    @property
    def line(self) -> int:
        """Pixels from one line to the next."""
        return round(self.size * LINE)

    def width(self, text: str) -> float:
        """Pixels that a line of text takes."""
        return sum(font(face, self.size, self.bold).getlength(part) for face, part in runs(text))

    def draw(
        self, draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, ink: str
    ) -> None:
        """Draw a line of text.

        Args:
            draw: Of the picture.
            place: Left end and upper edge of the line, in pixels.
            text: One line.
            ink: Its colour.
        """
        left, top = place
        baseline = top + round(self.size * 1.05)
        for face, part in runs(text):
            letters = font(face, self.size, self.bold)
            draw.text((left, baseline), part, fill=ink, font=letters, anchor="ls")
            left += letters.getlength(part)

    def wrap(self, text: str, width: float, lines: int | None = None) -> list[str]:
        """Break text into lines that fit.

        Between words, between Chinese and Japanese signs anywhere, and inside of a word only if it
        is longer than a line.

        Args:
            text: May hold line breaks.
            width: Pixels.
            lines: At most so many; the last one then ends in "…".
        """
        wrapped: list[str] = []
        for paragraph in text.split("\n"):
            wrapped += self._wrap_line(paragraph, width)
            if lines is not None and len(wrapped) > lines:
                last = wrapped[lines - 1]
                while last and self.width(f"{last}…") > width:
                    last = last[:-1]
                return [*wrapped[: lines - 1], f"{last.rstrip()}…"]
        return wrapped

    def _wrap_line(self, text: str, width: float) -> list[str]:
        lines, line = [], ""
        for word in _words(text):
            if line and self.width((line + word).rstrip()) > width:
                lines.append(line.rstrip())
                line = ""
                word = word.lstrip()
            for part in self._cut(word, width - self.width(line)):
                if line and self.width((line + part).rstrip()) > width:
                    lines.append(line.rstrip())
                    line = ""
                line += part
        return [*lines, line.rstrip()]

    def _cut(self, word: str, width: float) -> Iterator[str]:
        """A word in parts of at most a line; whole where it fits."""
        while len(word) > 1 and self.width(word.rstrip()) > width:
            low, high = 1, len(word) - 1
            while low < high:
                middle = (low + high + 1) // 2
                low, high = (
                    (middle, high) if self.width(word[:middle]) <= width else (low, middle - 1)
                )
            yield word[:low]
            word = word[low:]
        yield word


def _words(text: str) -> Iterator[str]:
    """Words with the spaces behind them; a wide sign is a word of its own."""
    word = ""
    for unit in _UNITS.findall(text):
        if unicodedata.east_asian_width(unit[0]) in "WF":
            if word:
                yield word
            yield unit
            word = ""
        elif unit.isspace():
            yield word + " "
            word = ""
        else:
            word += unit
    if word:
        yield word


def runs(text: str) -> list[tuple[int, str]]:
    """Parts of a line that one font draws, in the order in which they stand from left to right.

    A line whose first letter with a direction is right-to-left begins at its right end. Spaces of
    any kind, line breaks too, are drawn as one.
    """
    text = re.sub(r"\s", " ", text)
    faces = [_face(sign) for sign in text]
    for index, sign in enumerate(text):
        before = faces[index - 1] if index else None
        if before is not None and (sign.isspace() or unicodedata.combining(sign)):
            faces[index] = before  # so that words of one script stay one run
    parts = [
        (face, "".join(sign for _, sign in group))
        for face, group in groupby(zip(faces, text, strict=True), key=lambda pair: pair[0])
    ]
    parts = [(face, part) if face is not None else (0, _spelled(part)) for face, part in parts]
    return parts[::-1] if _is_right_to_left(text) else parts


def _is_right_to_left(text: str) -> bool:
    directions = (unicodedata.bidirectional(sign) for sign in text)
    return next((d in _RIGHT_TO_LEFT for d in directions if d in ("L", *_RIGHT_TO_LEFT)), False)


def _spelled(text: str) -> str:
    """Signs that no font has, by their numbers: better than a box."""
    return "".join(f"[U+{ord(sign):04X}]" for sign in text)


@cache
def _face(sign: str) -> int | None:
    """Number of the first font that has a sign; None if none has."""
    if sign.isspace() or unicodedata.category(sign) in ("Cf", "Mn"):
        return 0
    return next((i for i in range(len(_FACES)) if ord(sign) in _coverage(i)), None)


@cache
def _coverage(face: int) -> frozenset[int]:
    """Code points that a font has; none where its package is missing."""
    path = font_path(face, bold=False)
    if path is None:
        return frozenset()
    with TTFont(path, lazy=True) as opened:
        return frozenset(opened.getBestCmap())


@cache
def font_path(face: int, bold: bool) -> Path | None:
    """The file of a font; None where its package is missing."""
    package, *names = _FACES[face]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / names[bold]
    return path if path.is_file() else None


@cache
def font(face: int, size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """A font in one size."""
    path = font_path(face, bold)
    if path is None:
        package = _FACES[face][0]
        raise FileNotFoundError(f"the package {package} has no font: install it again")
    return ImageFont.truetype(path, size)
