"""report/index.html: one file that needs no network and runs nothing but its own script.

Every text from a run folder passes through the template's escaping, and a content security policy
in the page itself allows neither requests nor any script or style but the two that it came with.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lora_lab import __version__
from lora_lab.clock import duration
from lora_lab.files import write_text
from lora_lab.study.figures import FigureSet
from lora_lab.study.judge.verdict import Judged, Study
from lora_lab.study.report.blind_table import BlindTable
from lora_lab.study.report.gallery import Gallery
from lora_lab.study.report.headline import Headline
from lora_lab.study.report.pictures import Embedded, embed_png
from lora_lab.study.report.provenance import command, fingerprint_facts, problems, version_facts
from lora_lab.study.report.seeds import seeds_told
from lora_lab.study.report.spelling import listed, magnitude
from lora_lab.study.report.table import legend, make_figures, make_table
from lora_lab.study.report.texts import FIGURE_TEXTS, alt_text, limits

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("report.js", "images.js")
FIRST = ("effects", "pareto")
"""Figures that stand before the table."""
FORMS = ("light", "dark", "light_narrow", "dark_narrow")


def write_page(
    study: Study,
    headline: Headline,
    figures: list[FigureSet],
    images: Gallery,
    path: Path,
    blind: BlindTable | None = None,
) -> None:
    """Render the report and write it.

    Args:
        study: The judged sweep.
        headline: Its first sentences.
        figures: The drawn figures.
        images: The images and grids, and what is missing of them.
        path: Where the page goes.
        blind: What a person chose; blind.html beside the page is linked where there is one.

    Raises:
        LabError: The file can't be written.
    """
    template = environment().get_template("report.html.j2")
    write_text(
        path,
        template.render(
            _context(
                study, headline, figures, images, blind, (path.parent / "blind.html").is_file()
            )
        ),
    )


def environment() -> Environment:
    """Templates in which every text is escaped and every name must be known."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _context(
    study: Study,
    headline: Headline,
    figures: list[FigureSet],
    images: Gallery,
    blind: BlindTable | None,
    blind_page: bool,
) -> dict[str, Any]:
    columns, rows = make_table(study)
    figure_columns, figure_rows = make_figures(study)
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    script = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return {
        "version": __version__,
        "style": Markup(style),
        "script": Markup(script),
        "style_hash": style_hash(style),
        "script_hash": style_hash(script),
        "parameter": study.sweep.parameter,
        "title_values": listed(study.sweep.values),
        "headline": headline,
        "from_logs": bool(study.sweep.command),
        "facts": _facts(study),
        "columns": columns,
        "rows": rows,
        "figure_columns": figure_columns,
        "figure_rows": figure_rows,
        "metrics": study.metrics,
        "legend": legend(study),
        "problems": problems(study),
        "sweep_notes": study.sweep.notes,
        "first_figures": [_figure(study, one) for one in figures if one.name in FIRST],
        "figures": [_figure(study, one) for one in figures if one.name not in FIRST],
        "seeds_told": seeds_told(study),
        "blind": blind,
        "blind_page": blind_page,
        "grids": images.grids,
        "real": images.real,
        "grid_notes": images.notes,
        "explorer": images.explorer,
        "command": command(study),
        "provenance": [
            {"title": "Inputs", "subject": "Fingerprint of", "facts": fingerprint_facts(study)},
            {"title": "Versions", "subject": "What", "facts": version_facts(study)},
        ],
        "limits": limits(study),
    }


def _facts(study: Study) -> list[dict[str, str]]:
    """A few figures below the headline."""
    complete = [one for one in study.judged if one.run.complete]
    floor = "unknown"
    if study.base is not None and not study.floor.reason:
        floor = f"± {magnitude(study.floor.sd / study.base.measures.held_out)}"
    seeds = [result.seeds for one in study.values if (result := one.first_result)]
    each = "–" if not seeds else str(seeds[0]) if len(set(seeds)) == 1 else "as many as it took"
    facts = [
        ("Values", str(len(study.values))),
        ("Base", study.sweep.base_value or "–"),
        ("Base seeds", str(sum(one.run.is_base and one.run.complete for one in study.judged))),
        ("Seeds of each value", each),
        ("Another seed of the base", floor),
        ("Runs complete", f"{len(complete)} of {len(study.judged)}"),
        ("Machine time of training", duration(total_seconds(complete))),
    ]
    return [{"name": name, "value": value} for name, value in facts]


def total_seconds(runs: Sequence[Judged]) -> float:
    """What all trainings took, one process after the other; runs of a stack share its time."""
    seconds = [one.measures.seconds for one in runs if one.measures.seconds >= 0]
    return sum(seconds) if seconds else float("nan")


def _figure(study: Study, figure: FigureSet) -> dict[str, Any]:
    text = FIGURE_TEXTS[figure.name]
    pictures: dict[str, Embedded] = {}
    for form in FORMS:
        picture = getattr(figure, form)
        pictures[form] = embed_png(picture.png, picture.width, picture.height)
    return {
        "name": figure.name,
        "short": text.short,
        "title": text.title,
        "lede": text.lede,
        "caption": text.caption,
        "alt": alt_text(study, figure.name),
        **pictures,
    }


def page_bytes(figures: list[FigureSet]) -> int:
    """Bytes of the page that the figures take, as text."""
    pictures = [getattr(figure, form) for figure in figures for form in FORMS]
    return sum(len(picture.png) * 4 // 3 + 64 for picture in pictures)


def style_hash(text: str) -> str:
    """What a content security policy names an inline style or script by."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
