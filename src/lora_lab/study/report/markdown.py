"""report.md: the report for a pull request, where GitHub and GitLab render it.

Figures and grids are links to the files beside it. Text from a run folder is escaped: it can
neither make markup nor end a cell.
"""

import html
import re
from urllib.parse import quote

from lora_lab.study.judge.verdict import Study
from lora_lab.study.report.gallery import Gallery
from lora_lab.study.report.headline import Headline
from lora_lab.study.report.provenance import command, problems
from lora_lab.study.report.table import Cell, Row, legend, make_table
from lora_lab.study.report.texts import FIGURE_TEXTS, alt_text, limits, shown_figures

FIRST = ("effects",)
"""Figures that stand before the table."""
MAX_ROWS = 60
"""More rows than this are not read in a pull request; comparison.csv has all."""
_MARKS = re.compile(
    r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])"  # an underscore inside a word is none
    r"|:(?=//)|(?<=www)\."  # addresses that would become links
)
"""Signs that GitHub's Markdown would read as markup anywhere in a line."""
_BEGINNING = re.compile(r"^(?:[#+=>-]|\d+(?=[.)](?:\s|$)))")
"""What would begin a heading, a list or a quote where a line begins; of a number, the number."""


def markdown(study: Study, headline: Headline, images: Gallery) -> str:
    """The report as GitHub-flavoured Markdown.

    Args:
        study: The judged sweep.
        headline: Its first sentences.
        images: The grids that lie beside the report.
    """
    shown = shown_figures(study)
    parts = [f"# {inline_text(headline.sentence)}", *map(plain_text, headline.details)]
    parts += [_picture(study, name) for name in FIRST if name in shown]
    parts += ["## Values", _table(study)]
    if told := legend(study):
        parts.append("\n".join(f"- **{inline_text(name)}**: {inline_text(t)}" for name, t in told))
    if found := problems(study):
        parts.append("## Problems")
        parts.append("\n".join(f"- {_problem(one.label, one.sentences)}" for one in found))
    parts += _grids(images)
    for name in (name for name in shown if name not in FIRST):
        parts.append(f"## {FIGURE_TEXTS[name].title}")
        parts.append(_picture(study, name))
    parts += ["## What this study can’t tell"]
    parts.append("\n".join(f"- {plain_text(limit)}" for limit in limits(study)))
    parts += ["## Command", _code_block(command(study))]
    parts.append(
        "Every verdict: [verdicts.csv](verdicts.csv), every figure: "
        "[comparison.csv](comparison.csv). With pictures: `index.html`."
    )
    return "\n\n".join(parts) + "\n"


def plain_text(text: str) -> str:
    """Text in which nothing is markup, as a paragraph or an entry of a list."""
    return _BEGINNING.sub(_escaped_beginning, inline_text(text))


def inline_text(text: str) -> str:
    """Text in which nothing is markup, in a heading or in a cell, where no line begins."""
    return _MARKS.sub(r"\\\g<0>", html.escape(" ".join(text.split()), quote=False))


def _escaped_beginning(found: re.Match[str]) -> str:
    """A number keeps its digits; the sign after it is escaped."""
    return f"{found[0]}\\" if found[0].isdecimal() else f"\\{found[0]}"


def _picture(study: Study, name: str) -> str:
    return f"![{inline_text(alt_text(study, name))}]({name}.png)"


def _table(study: Study) -> str:
    columns, rows = make_table(study)
    lines = [
        "| " + " | ".join(inline_text(column.name) for column in columns) + " |",
        "|" + "|".join("---:" if column.numeric else "---" for column in columns) + "|",
    ]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows[:MAX_ROWS]]
    if len(rows) > MAX_ROWS:
        lines += [
            "",
            f"{len(rows) - MAX_ROWS} more rows stand in [comparison.csv](comparison.csv).",
        ]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    name = inline_text(f"{row.label} ({row.tag})" if row.tag else row.label)
    first = [f"**{name}**" if row.is_base else name, inline_text(row.verdict)]
    return [*first, *map(_cell, row.cells)]


def _cell(cell: Cell) -> str:
    """A figure with its interval, where it has one."""
    return inline_text(f"{cell.text} ({cell.detail})" if cell.strip and cell.detail else cell.text)


def _problem(label: str, sentences: tuple[str, ...]) -> str:
    return f"**{inline_text(label)}**: {inline_text('; '.join(sentences))}"


def _grids(images: Gallery) -> list[str]:
    if not images.grids:
        return []
    parts = ["## Gallery"]
    for group in images.grids:
        for grid in group.grids:
            parts.append(f"![{inline_text(grid.alt)}]({quote(grid.file)})")
    return parts


def _code_block(text: str) -> str:
    """Indented, so that no character of it can end it."""
    return "\n".join(f"    {line}" for line in text.splitlines())
