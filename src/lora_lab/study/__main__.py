"""The command that builds a comparison: python -m lora_lab.study <sweep folder>."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lora_lab.cli.ending import DEBUG, OneLineParser, path_of, run_plain, tell, tell_report
from lora_lab.cli.log_lines import log_to_stderr
from lora_lab.errors import ConfigError, LabError

if TYPE_CHECKING:
    from lora_lab.study.report.build import BuiltReport


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the report and print its first sentence, then its path.

    Args:
        arguments: The command line; the process's own when None.

    Returns:
        0 when the report was built, 1 when it couldn't be, 2 for a wrong argument.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.out is not None and options.kohya is None:
        parser.error("--out goes with --kohya; a sweep's report lies in the sweep folder")
    if options.kohya is not None and (options.metrics or options.choose or options.blind):
        parser.error(
            "--metrics, --choose and --blind need a sweep; kohya's logs hold no LoRA files"
        )
    log_to_stderr()
    try:
        report = _build(options)
    except LabError as error:
        tell([str(error)])
        return 2 if isinstance(error, ConfigError) else 1
    tell_report(report.sentence, report.page)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m lora_lab.study",
        description="Builds the comparison of a sweep again from what is on disk, or one from the "
        "logs of kohya's trainer.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "sweep",
        type=path_of,
        nargs="?",
        help="folder of a sweep: the one with sweep.json in it",
    )
    what.add_argument(
        "--kohya",
        type=path_of,
        metavar="FOLDER",
        help="folder of kohya's event files and settings",
    )
    parser.add_argument(
        "--out",
        type=path_of,
        metavar="FOLDER",
        help="where --kohya writes; <FOLDER>/report",
    )
    parser.add_argument(
        "--blind",
        type=path_of,
        metavar="FILE",
        help="answers that report/blind.html has saved",
    )
    parser.add_argument("--metrics", action="store_true", help="draw and score its metric images")
    parser.add_argument(
        "--choose", action="store_true", help="choose a checkpoint and a LoRA weight for each run"
    )
    parser.add_argument(DEBUG, action="store_true", help="show where an unforeseen error arose")
    return parser


def _build(options: argparse.Namespace) -> "BuiltReport":
    from lora_lab.study.report.build import FOLDER, build_report

    if options.kohya is None:
        if options.metrics or options.choose:
            # PyTorch takes seconds to load: only where something is drawn.
            from lora_lab.metrics.sweep_images import draw_for_study

            draw_for_study(options.sweep, options.metrics, options.choose)
        return build_report(options.sweep, options.blind)
    from lora_lab.study.kohya_logs.build import build_kohya_report

    return build_kohya_report(options.kohya, options.out or options.kohya / FOLDER)


if __name__ == "__main__":
    sys.exit(run_plain(main))
