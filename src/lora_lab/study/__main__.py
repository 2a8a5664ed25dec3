"""The command that builds the comparison of a sweep again: python -m lora_lab.study <folder>."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from lora_lab.errors import ConfigError, LabError
from lora_lab.study.report import build_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds the report and prints its path.

    Args:
        arguments: the command line; the process's own when None.

    Returns:
        0 when the report was built, 1 when it couldn't be, 2 for a wrong argument.
    """
    parser = argparse.ArgumentParser(
        prog="python -m lora_lab.study",
        description="Builds the comparison of a sweep again from what is on disk.",
    )
    parser.add_argument("sweep", type=Path, help="folder of a sweep: the one with sweep.json in it")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        page = build_report(options.sweep)
    except LabError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
