"""Errors that are meant for the person at the terminal."""

LONGEST = 1000
"""Characters of a line on the terminal; names and values of others can be of any length."""


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
