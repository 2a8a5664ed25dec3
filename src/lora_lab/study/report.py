"""Builds the report of a sweep from what its runs left on disk."""

import logging
from pathlib import Path

from lora_lab.files import make_folder, write_text
from lora_lab.study.comparison import write_comparison
from lora_lab.study.gallery import load_gallery
from lora_lab.study.headline import headline
from lora_lab.study.load import load_sweep
from lora_lab.study.markdown import markdown
from lora_lab.study.pictures import MAX_PAGE_BYTES, TEXT_SHARE
from lora_lab.study.provenance import problems
from lora_lab.study.verdict import judge

log = logging.getLogger(__name__)
FOLDER = "report"


def build_report(sweep_dir: Path) -> Path:
    """Reads a sweep folder and writes its report: the page, the figures and the table.

    Runs that failed, are missing, damaged or not comparable are named in the report and stop
    nothing.

    Args:
        sweep_dir: the folder that holds sweep.json.

    Returns:
        The page, report/index.html.

    Raises:
        ConfigError: there is no sweep in the folder.
        LabError: sweep.json can't be read, or the report can't be written.
    """
    study = judge(load_sweep(Path(sweep_dir)))
    for problem in problems(study):
        log.info("%s: %s", problem.name, "; ".join(problem.sentences))
    folder = make_folder(Path(sweep_dir) / FOLDER)
    # Drawing needs matplotlib, which takes a second to load: only when there is something to draw.
    from lora_lab.study.figures import draw_figures
    from lora_lab.study.page import page_bytes, write_page

    write_comparison(study, folder / "comparison.csv")
    figures = draw_figures(study, folder)
    images = load_gallery(study, folder, MAX_PAGE_BYTES - TEXT_SHARE - page_bytes(figures))
    page = folder / "index.html"
    write_page(study, headline(study), figures, images, page)
    write_text(folder / "report.md", markdown(study, headline(study), images))
    return page
