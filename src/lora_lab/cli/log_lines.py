"""How a log line is written: names and texts of others can't colour a terminal or fill it."""

import logging

from lora_lab.errors import printable

LONGEST = 1000
"""Characters of a line."""


class LineFormatter(logging.Formatter):
    """Python's formatter, each of whose lines prints and has an end."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record's lines."""
        return "\n".join(printable(line, LONGEST) for line in super().format(record).split("\n"))
