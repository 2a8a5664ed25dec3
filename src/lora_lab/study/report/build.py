"""Builds the report of a sweep from what its runs left on disk."""

import logging
from dataclasses import dataclass
from pathlib import Path

from lora_lab.files import make_folder, write_text
from lora_lab.study.judge.verdict import Study, judge
from lora_lab.study.read.blind import Blind, read_answers, with_blind
from lora_lab.study.read.load import load_sweep
from lora_lab.study.report.blind_table import blind_table
from lora_lab.study.report.comparison import write_comparison
from lora_lab.study.report.gallery import Gallery, load_gallery
from lora_lab.study.report.headline import Headline, headline
from lora_lab.study.report.markdown import markdown
from lora_lab.study.report.pictures import MAX_PAGE_BYTES, TEXT_SHARE
from lora_lab.study.report.provenance import problems
from lora_lab.study.report.texts import shown_figures

log = logging.getLogger(__name__)
FOLDER = "report"


@dataclass(frozen=True)
class BuiltReport:
    """A report that was written."""

    page: Path
    """The page, index.html."""
    sentence: str
    """Its first sentence; text from a run folder in it is as it was."""


def build_report(sweep_dir: Path, answers: Path | None = None) -> BuiltReport:
    """Read a sweep folder and write its report: the page, the figures and the table.

    Runs that failed, are missing, damaged or not comparable are named in the report and stop
    nothing.

    Args:
        sweep_dir: The folder that holds sweep.json.
        answers: What a person chose on report/blind.html, judged like a metric.

    Returns:
        The page, report/index.html, with its first sentence.

    Raises:
        ConfigError: There is no sweep in the folder, or the answers are of another one.
        LabError: sweep.json can't be read, or the report can't be written.
    """
    sweep_dir = Path(sweep_dir)
    sweep = load_sweep(sweep_dir)
    blind = None
    if answers is not None:
        blind = read_answers(answers, sweep)
        sweep = with_blind(sweep, blind)
    study = judge(sweep)
    folder = sweep_dir / FOLDER
    make_folder(folder)
    from lora_lab.study.report.blind_page import write_blind_page  # matplotlib, as below

    write_blind_page(sweep, folder)
    return write_report(study, headline(study), folder, with_images=True, blind=blind)


def write_report(
    study: Study,
    words: Headline,
    folder: Path,
    *,
    with_images: bool,
    blind: Blind | None = None,
) -> BuiltReport:
    """Write the page, its short form, the figures and the table of a comparison.

    Args:
        study: The judged runs.
        words: The first sentences of the page.
        folder: Where all goes.
        with_images: Whether the runs have images; without, the page doesn't speak of them.
        blind: What a person chose, as far as that was asked for.

    Returns:
        The page, index.html, with its first sentence.

    Raises:
        LabError: The report can't be written.
    """
    for problem in problems(study):
        log.info("%s: %s", problem.name, "; ".join(problem.sentences))
    make_folder(folder)
    # Drawing needs matplotlib, which takes a second to load: only when there is something to draw.
    from lora_lab.study.figures import draw_figures
    from lora_lab.study.report.page import page_bytes, write_page

    write_comparison(study, folder / "comparison.csv")
    figures = draw_figures(study, shown_figures(study), folder)
    room = MAX_PAGE_BYTES - TEXT_SHARE - page_bytes(figures)
    images = load_gallery(study, folder, room) if with_images else Gallery([], [], None)
    page = folder / "index.html"
    table = blind_table(study, blind) if blind is not None else None
    write_page(study, words, figures, images, page, table)
    write_text(folder / "report.md", markdown(study, words, images))
    return BuiltReport(page, words.sentence)
