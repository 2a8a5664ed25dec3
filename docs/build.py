"""Writes docs/settings.md and the tables of other pages, and checks every link.

python docs/build.py           writes them
python docs/build.py --check   writes nothing; tells what is stale or broken
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lora_lab.cli.help import field_docs
from lora_lab.config import SampleConfig, TrainConfig
from lora_lab.config.convert import field_types, is_group, leaf_types, type_words
from lora_lab.config.optimizer import TABLE as OPTIMIZERS
from lora_lab.config.store import register_schemas
from lora_lab.kohya.names import KOHYA_NAMES, NONE

ROOT = Path(__file__).resolve().parents[1]
QUALITY = ROOT / "src" / "lora_lab" / "pocket" / "models" / "quality.json"
SETTINGS = ROOT / "docs" / "settings.md"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
MAPPINGS = (
    "sampling.prompts.complex_for",
    "optimizer.args",
)
"""Settings that are themselves names with values."""
MISSING = "(missing)"
GUIDE = ["model=sd15", "data=folder", "sampling=sd15"]
INTRO = """# Settings

Written by `make docs` from `src/lora_lab/config/` and `conf/`; `--help` tells the same.
The first value is that of `model=pocket`, the default; `sd15:` is that of
`model=sd15 data=folder sampling=sd15`, which follows the guide. `???` has to be given.
The last column is the name on the command line of sd-scripts, – where it has none:
see [coming from kohya](kohya.md).
"""


def lines_of(schema: type, prefix: str = "") -> dict[str, str]:
    """Full key -> the line of documentation below the field, nested dataclasses included."""
    lines: dict[str, str] = {}
    for name, kind in field_types(schema).items():
        key = prefix + name
        lines |= lines_of(kind, f"{key}.") if is_group(kind) else {key: field_docs(schema)[name]}
    return lines


def values(config_name: str, overrides: list[str]) -> dict[str, Any]:
    """Full key -> value of a composed config; nothing is loaded or checked."""
    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose(config_name, overrides)
    flat: dict[str, Any] = {}

    def walk(node: Any, prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict) and prefix + key not in MAPPINGS:
                walk(value, f"{prefix}{key}.")
            else:
                flat[prefix + key] = value

    walk(OmegaConf.to_container(config, resolve=False), "")
    return flat


def shown(value: Any) -> str:
    """A value as it is typed on the command line; long lists are cut."""
    if isinstance(value, list):
        text = ", ".join(str(item) for item in value)
        return f"`[{text}]`" if len(text) <= 60 else f"{len(value)} entries"
    if isinstance(value, dict) and value:
        return f"{len(value)} set"
    if value is None or isinstance(value, bool):
        return f"`{str(value).lower().replace('none', 'null')}`"
    return f"`{value}`" if value != "" else "(empty)"


def meaning(line: str, kind: Any) -> str:
    """A field's line as Markdown in a table's cell, with its type unless the line names it."""
    words = type_words(kind)
    text = line if words in line else f"{line} ({words})"
    return text.replace("<", "&lt;").replace("|", "&#124;")


def kohya_name(key: str, schema: type) -> str:
    """What sd-scripts calls a setting; those of sample.py alone it doesn't have."""
    name = KOHYA_NAMES.get(key, MISSING if schema is TrainConfig else NONE)
    return name if name in (NONE, MISSING) else f"`{name}`"


def rows(schema: type, pocket: dict[str, Any], guide: dict[str, Any], skip: str) -> list[str]:
    """The Markdown tables of a schema, a section for each group of keys."""
    docs, lines, section = lines_of(schema), [], None
    leaves = [key for key in leaf_types(schema) if not key.startswith(skip)]
    for key in sorted(leaves, key=lambda key: "." in key):  # keys without a group come first
        group = key.split(".")[0] if "." in key else ""
        if group != section:
            section = group
            lines += ["", f"### {group or 'The run'}", "", "| key | value | meaning | kohya |"]
            lines += ["| --- | --- | --- | --- |"]
        here, there = shown(pocket[key]), shown(guide[key])
        value = here if here == there else f"{here}, sd15: {there}"
        told = meaning(docs[key], leaf_types(schema)[key])
        lines.append(f"| `{key}` | {value} | {told} | {kohya_name(key, schema)} |")
    return lines


def settings() -> str:
    """The text of docs/settings.md."""
    train = rows(TrainConfig, values("train", []), values("train", GUIDE), skip="sampling.")
    sample = rows(SampleConfig, values("sample", []), values("sample", ["sampling=sd15"]), skip="-")
    parts = [INTRO, "## train.py", *train, "", "Its `sampling.*` are those of `sample.py`.", ""]
    return "\n".join([*parts, "## sample.py", *sample]) + "\n"


def optimizers() -> str:
    """The table of docs/optimizers.md."""
    lines = ["| `optimizer=` | package | rate | use it when |", "| --- | --- | --- | --- |"]
    for name, entry in OPTIMIZERS.items():
        package = f"{entry.install}, GPU" if entry.needs_gpu else entry.install
        lines.append(f"| `{name}` | {package} | {entry.rate} | {entry.when} |")
    return "\n".join([*lines, "| `custom` | any | as its class has it | see below |"])


def pocket_quality() -> str:
    """The tables of docs/pocket.md, from the figures that `make pocket` measured."""
    figures = json.loads(QUALITY.read_text(encoding="utf-8"))
    styles = tuple(figures["vae_psnr_db"])
    followed, kid, subject = (figures[key] for key in ("prompt_following", "kid", "subject"))

    def row(what: str, wanted: Sequence[float], found: Sequence[float], form: str) -> str:
        cells = [form.format(value) for value in found]
        pairs = zip(cells, wanted or found, found, strict=True)
        bold = [f"**{cell}**" if value < least else cell for cell, least, value in pairs]
        goals = [form.format(least) for least in wanted]
        goal = ", ".join(goals if len(set(goals)) > 1 else goals[:1]) or "–"
        return f"| {what} | {goal} | {' | '.join(bold)} |"

    def by_style(what: str, wanted: Sequence[float], table: dict[str, float], form: str) -> str:
        return row(what, wanted, [table[style] for style in styles], form)

    def prompted(what: str, wanted: float, name: str) -> str:
        shares = [followed[style][name] for style in styles]
        return row(what, [wanted] * 3, shares, "{:.0%}")

    lines = [
        f"| what | wanted | {' | '.join(styles)} |",
        "| --- | --- | --- | --- | --- |",
        by_style(
            "VAE, PSNR of reconstructions, dB", (34, 31, 34), figures["vae_psnr_db"], "{:.1f}"
        ),
        by_style("VAE, SSIM", (), figures["vae_ssim"], "{:.3f}"),
        prompted("background as prompted", 0.98, "background"),
        prompted("garment and its colour as prompted", 0.95, "garment"),
        prompted("glasses or none as prompted", 0.97, "glasses"),
        prompted("hair colour as prompted", 0.95, "hair_color"),
        prompted("mouth as prompted", 0.8, "mouth"),
        prompted("eyes as prompted (not under sunglasses)", 0.8, "eyes"),
        by_style(
            "small CLIP, text to image among 64, top-1",
            [0.95] * 3,
            figures["clip_retrieval_of_64"],
            "{:.1%}",
        ),
    ]
    for what, side in (("generated", "generated"), ("other drawn ones", "drawn")):
        distances = {style: kid[style][side] for style in styles}
        lines.append(by_style(f"KID of drawn images to {what}", (), distances, "{:.4f}"))
    lines += ["", "| of 50 images of the person | wanted | with the LoRA | bare base |"]
    lines += ["| --- | --- | --- | --- |"]
    person = {
        "identity": "hair, its colour, skin, scar and print, all together",
        "hair": "hair",
        "hair_color": "hair colour",
        "skin": "skin",
        "scar": "scar",
        "print": "print",
        "garment": "garment as prompted",
        "garment_color": "its colour as prompted",
        "glasses": "glasses or none as prompted",
        "background": "background as prompted",
    }
    for name, what in person.items():
        drawn, bare = subject["with_lora"][name], subject["bare"][name]
        cell = f"{drawn:.0%}" if drawn >= 0.8 else f"**{drawn:.0%}**"
        goal = "80 %, bare 0 %" if name == "identity" else "80 %"
        lines.append(f"| {what} | {goal} | {cell} | {bare:.0%} |")
    lines += [
        "",
        f"| right on held-out drawn portraits | {' | '.join(styles)} | mixed features |",
    ]
    lines += ["| --- | --- | --- | --- | --- |"]
    accuracy = figures["reader_accuracy"]
    for name in accuracy["mixed"]:
        cells = [f"{accuracy[which][name]:.1%}" for which in (*styles, "mixed")]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    told = figures["told_from_captions"]
    shares = [f"{name.replace('_', ' ')} {told[name]:.1%}" for name in sorted(told, key=told.get)]
    lines += ["", f"Told from the text encoder's states of captions: {', '.join(shares)}."]
    text = re.sub(r"(\d)%", r"\1 %", "\n".join(lines))
    return re.sub(r"-(?=\d\.)", "−", text)


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "optimizers": ("optimizers.md", optimizers),
    "quality": ("pocket.md", pocket_quality),
}
"""Tables that are written into pages between ``<!-- table: name -->`` and ``<!-- end -->``."""


def written() -> dict[Path, str]:
    """Every page that this file writes, or writes a table of, and its text."""
    texts = {SETTINGS: settings()}
    for name, (page, table) in TABLES.items():
        path = ROOT / "docs" / page
        text = texts.get(path) or path.read_text(encoding="utf-8")
        before, _, rest = text.partition(f"<!-- table: {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        texts[path] = f"{before}<!-- table: {name} -->\n{table()}\n{end}{after}"
    return texts


def pages() -> list[Path]:
    """Every page of documentation."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def anchor(heading: str) -> str:
    """The anchor that a heading gets on the usual forges."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def broken_links() -> list[str]:
    """Links to a file or heading of the project that isn't there, as ``page: link``."""
    broken = []
    for page in pages():
        text = CODE.sub("", page.read_text(encoding="utf-8"))
        for link in LINK.findall(text):
            if re.match(r"[a-z]+:", link):
                continue
            name, _, fragment = link.partition("#")
            target = (page.parent / name) if name else page
            there = target.exists() and (
                not fragment
                or fragment in map(anchor, HEADING.findall(target.read_text(encoding="utf-8")))
            )
            if not there:
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    return broken


def main() -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    problems = []
    for path, text in written().items():
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            problems.append(f"{path.relative_to(ROOT)} is stale: run make docs")
    problems += [f"broken link: {link}" for link in broken_links()]
    print(
        "\n".join(problems)
        or "docs/settings.md and the tables are up to date, all links lead somewhere"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
