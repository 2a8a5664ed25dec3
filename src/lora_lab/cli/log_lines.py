"""How a log line is written: names and texts of others can't colour a terminal or fill it."""

import logging
import sys
from collections.abc import Mapping

from lora_lab.errors import printable

LONGEST = 1000
"""Characters of a line."""


class LineFormatter(logging.Formatter):
    """Python's formatter: a message is one line, a traceback one line for each of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the record's own line, indented as it was."""
        return " ".join(super().formatMessage(record).splitlines())

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line, and those of a traceback."""
        return "\n".join(printable(line, LONGEST) for line in super().format(record).split("\n"))


class LinesOfRuns(logging.Formatter):
    """Puts the name of a run before each line that its thread logs.

    Args:
        lines: Writes the lines themselves.
        names: Thread -> name of the run that it trains.
    """

    def __init__(self, lines: logging.Formatter | None, names: Mapping[int, str]) -> None:
        super().__init__()
        self.lines = lines or LineFormatter()
        self.names = names

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines; the name alone where that is all that is said."""
        text, name = self.lines.format(record), self.names.get(record.thread or 0)
        if name is None or text == name:
            return text
        return "\n".join(f"{name}: {line}" for line in text.split("\n"))


def log_to_stderr() -> None:
    """Have a command without a config log as the others do on the terminal."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
