"""Writes the data report: page, facts as JSON, contact sheet, and a table for a terminal."""

import base64
import dataclasses
import io
from pathlib import Path
from statistics import median

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lora_lab.data_report.contact_sheet import draw_contact_sheet
from lora_lab.data_report.facts import DataReport
from lora_lab.data_report.quality import BLURRED, NEAR
from lora_lab.files import atomic_path, write_json, write_text

PAGE, FACTS, SHEET = "data_report.html", "data_report.json", "contact_sheet.png"


def write_report(report: DataReport, folder: Path) -> None:
    """Write page, facts and contact sheet into a folder.

    Raises:
        LabError: The folder isn't writable.
    """
    sheet = io.BytesIO()
    draw_contact_sheet(report).save(sheet, format="PNG", optimize=True)
    with atomic_path(folder / SHEET) as temporary:
        temporary.write_bytes(sheet.getvalue())
    write_json(folder / FACTS, {**dataclasses.asdict(report), "findings": report.findings()})
    write_text(folder / PAGE, page(report, sheet.getvalue()))


def page(report: DataReport, sheet: bytes) -> str:
    """The page as one HTML file, with the contact sheet in it; everything from files is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        report=report,
        summary=summary(report),
        sheet=base64.b64encode(sheet).decode("ascii"),
        near=NEAR,
        blurred=BLURRED,
    )


def summary(report: DataReport) -> list[tuple[str, str]]:
    """What the report says in short: (what, how much)."""
    lines = []
    for title, part, concepts in (
        ("training images", "train", report.concepts),
        ("regularisation images", "reg", report.reg_concepts),
        ("held-out images", "held_out", {}),
    ):
        images = report.of(part)
        if images:
            repeats = ", ".join(f"{n} × {r} {name!r}" for name, (r, n) in concepts.items())
            lines.append((title, f"{len(images)}" + (f" ({repeats})" if repeats else "")))
    lines += [
        ("steps an epoch", f"{report.steps_per_epoch} with data.batch_size={report.batch_size}"),
        ("buckets", _buckets_text(report)),
        ("caption tokens", _tokens_text(report)),
    ]
    found = [f"{count} {finding}" for finding, count in report.findings().items()]
    left = f"{len(report.leftovers)} files or folders" if report.leftovers else "nothing"
    return [*lines, ("not read", left), ("to look at", ", ".join(found) or "nothing")]


def _buckets_text(report: DataReport) -> str:
    incomplete = [bucket for bucket in report.buckets if bucket.last_batch < report.batch_size]
    text = ", ".join(f"{b.size[0]}×{b.size[1]}: {b.images}" for b in report.buckets)
    if not incomplete:
        return f"{text}; all batches are full"
    return f"{text}; {len(incomplete)} with an incomplete last batch"


def _tokens_text(report: DataReport) -> str:
    tokens = [image.tokens for image in report.images]
    span = f"{min(tokens)} to {max(tokens)}, median {median(tokens):g}"
    return f"{span}; {report.max_token_length} are read"


def table(report: DataReport) -> str:
    """The summary for a terminal, with the images to look at, at most ten."""
    rows = summary(report)
    width = max(len(title) for title, _ in rows)
    lines = [f"{title:<{width}}  {text}" for title, text in rows]
    flagged = [image for image in report.images if image.findings]
    lines += [f"  {image.part} {image.key}: {', '.join(image.findings)}" for image in flagged[:10]]
    if len(flagged) > 10:
        lines.append(f"  and {len(flagged) - 10} more, see {PAGE}")
    lines += [f"  not read: {left.path}: {left.why}" for left in report.leftovers[:10]]
    if len(report.leftovers) > 10:
        lines.append(f"  and {len(report.leftovers) - 10} more that are not read, see {PAGE}")
    return "\n".join(lines) + "\n"
