"""Errors that are meant for the person at the terminal."""

import difflib
from collections.abc import Iterable, Sequence

LONGEST = 1000
"""Characters of a line on the terminal; names and values of others can be of any length."""
LONGEST_VALUE = 100
"""Characters of a value or name inside such a line."""
FEW_NAMES = 25
"""So many names are all told."""
NEAREST = 5
"""Of more names so many are."""
MOST_COMPARED = 2000
"""Names of which the nearest are looked for: that takes a moment each."""


def one_line(text: object, longest: int = LONGEST) -> str:
    """Return a text of anybody's as one line that a terminal or a comment can show.

    Line breaks of every kind and rows of spaces become one space; else as ``printable``.
    """
    return printable(" ".join(str(text).split()), longest)


def printable(text: str, longest: int = LONGEST) -> str:
    """Return a text without what colours a terminal or moves its cursor, cut where it is long.

    Characters that don't print become ``?``; a text that is too long is cut in the middle.
    """
    line = "".join(sign if sign.isprintable() else "?" for sign in text)
    if len(line) <= longest:
        return line
    return f"{line[: longest * 2 // 3]} … {line[-longest // 4 :]}"


def offered(given: object, names: Iterable[str]) -> str:
    """Return the names that an error offers: all while they are few, else the nearest ones.

    Args:
        given: What was asked for, which is none of them.
        names: What there is, in the order in which few of them are told.
    """
    every = list(names)
    known = list(map(clipped, every[:MOST_COMPARED]))
    if len(every) <= FEW_NAMES:
        return ", ".join(known) or "none"
    near = difflib.get_close_matches(clipped(given), known, n=NEAREST, cutoff=0.0)
    return f"{len(every)} names, of which {', '.join(near)} come nearest"


def some(names: Sequence[str]) -> str:
    """Return the first few of some names, and how many more there are."""
    more = f" and {len(names) - NEAREST} more" if len(names) > NEAREST else ""
    return ", ".join(map(clipped, names[:NEAREST])) + more


def clipped(value: object) -> str:
    """Return a value or name of anybody's as an error quotes it: one line, cut where it is long."""
    return one_line(value, LONGEST_VALUE)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text that isn't empty, or the error's kind."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


class LabError(Exception):
    """A failure told in one line: what (key or file), its value, what is allowed, what to do next.

    Commands print it without a traceback and end with status 1.

    Args:
        problems: One line each; a line break in one of them, say in a file's name, becomes a space.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*(" ".join(problem.splitlines()) for problem in problems))

    def __str__(self) -> str:
        """Return one line for each problem."""
        return "\n".join(self.args)


class ConfigError(LabError):
    """A wrong argument or setting, found before anything started; commands end with status 2."""


class Stopped(KeyboardInterrupt):
    """A signal ended a run at a step whose checkpoint is written; a sweep ends with it, too.

    Args:
        number: The signal.
        step: The last step that was taken; 0 before the first.
    """

    def __init__(self, number: int, step: int) -> None:
        when = f"after step {step}" if step else "before the first step"
        super().__init__(f"stopped by signal {number} {when}")
        self.number = number
        self.step = step

    def __reduce__(self) -> tuple[type["Stopped"], tuple[int, int]]:
        """Return what makes it anew, as a launcher hands it from its worker to the sweep."""
        return type(self), (self.number, self.step)
