"""The files of a report: whole, escaped, within their limits."""

import csv
import io
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from lora_lab.cli.ending import tell_report
from lora_lab.errors import LabError
from lora_lab.study import figures
from lora_lab.study.__main__ import main
from lora_lab.study.judge.verdict import judge
from lora_lab.study.read.load import load_sweep
from lora_lab.study.report.build import build_report
from lora_lab.study.report.comparison import comparison_text
from lora_lab.study.report.pictures import MAX_PAGE_BYTES, embed_file
from lora_lab.study.report.provenance import command
from study_sweep_builder import SweepBuilder, fingerprints

FIGURES = ("effects", "pareto", "dlr", "loss", "loss_paired", "val_loss", "cost")
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}$x^2$'


class Page(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def quick(monkeypatch):
    """Draws one figure instead of all: enough for a test that looks at the words."""
    monkeypatch.setattr(figures, "DRAW", {"cost": figures.DRAW["cost"]})


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with good, failed, missing and hostile values, and two grids."""
    sweep = SweepBuilder(tmp_path_factory.mktemp("sweep"), parameter="network.dim<b>")
    sweep.base(3).value("8", effect=-0.004).value(HOSTILE, name="hostile")
    sweep.value("0", status="failed", error=HOSTILE, name="failed")
    sweep.value("64", status="missing").value("4", inputs=fingerprints(latents="x"))
    folder = sweep.write()
    sweep.grid(kind="simple")
    sweep.grid("<i>mark", "complex")
    sweep.images()
    return build_report(folder).page.parent


@pytest.fixture(scope="module")
def page(report):
    return (report / "index.html").read_text(encoding="utf-8")


def test_every_file_of_the_contract_is_there(report):
    for name in (
        "index.html",
        "report.md",
        "comparison.csv",
        "verdicts.csv",
        *(f"{figure}.png" for figure in FIGURES),
    ):
        assert (report / name).stat().st_size > 0, name


def test_nothing_temporary_is_left(report):
    assert not list(report.glob(".*"))


def test_no_markup_of_a_run_reaches_the_page(page):
    parsed = Page(page)
    kinds = [script.get("type") for script in parsed.all("script")]
    assert kinds == ["application/json", None]
    assert not parsed.all("i") and not parsed.all("b")
    assert all("onerror" not in attributes for _, attributes in parsed.tags)
    assert "{{7*7}}" in page


def test_the_page_asks_for_nothing_outside_of_itself(page):
    for attributes in Page(page).all("img") + Page(page).all("source"):
        source = attributes.get("src") or attributes.get("srcset") or "data:"
        assert source.startswith("data:"), source[:80]
    outside = re.sub(r"data:image/\w+;base64,[\w+/=]+", "", page)
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttpRequest", outside)
    assert "default-src 'none'" in page


def test_links_lead_into_the_page_or_to_files_beside_it(page, report):
    for attributes in Page(page).all("a"):
        target = attributes["href"] or ""
        if target.startswith("#"):
            assert f'id="{target[1:]}"' in page
        else:
            assert (report / unquote(target)).is_file(), target


def test_every_picture_has_a_description_and_a_size(page):
    pictures = [a for a in Page(page).all("img") if "src" in a]
    assert len(pictures) == len(FIGURES) + 2
    assert all(a["alt"] and a["width"] and a["height"] for a in pictures)


def test_the_page_has_landmarks_one_h1_and_table_headers(page):
    parsed = Page(page)
    for tag in ("header", "nav", "main", "footer", "h1"):
        assert len(parsed.all(tag)) == 1, tag
    assert all("scope" in attributes for attributes in parsed.all("th"))
    assert len(parsed.all("caption")) == len(parsed.all("table"))


def test_failed_missing_and_foreign_values_are_named_with_the_reason(page):
    problems = page[page.index('id="problems"') : page.index('id="grids"')]
    assert "failed: &#34;&gt;&lt;script&gt;" in problems
    assert "its folder holds no run.json" in problems
    assert "other latents" in problems


def test_missing_grids_are_named(page):
    assert "The grid of the random prompt on pocket-graphic is missing." in page


def test_without_any_grid_the_page_says_how_to_draw_them(tmp_path, quick):
    page = build_report(SweepBuilder(tmp_path).base(2).value("8").write()).page
    assert "There are no grids yet" in page.read_text(encoding="utf-8")


def test_comparison_csv_has_a_row_a_run_and_every_figure(report):
    rows = list(csv.DictReader(io.StringIO((report / "comparison.csv").read_text("utf-8"))))
    assert [row["run"] for row in rows][:4] == ["base", "base-2", "base-3", "network.dim<b>=8"]
    better = rows[3]
    assert better["verdict"] == "better"
    assert float(better["held_out_loss_effect"]) == pytest.approx(-0.0042)
    assert better["held_out_loss_verdict"] == "better"
    # Shown already, so no seeds are proposed.
    assert (better["held_out_loss_seeds_needed"], better["held_out_loss_more_seeds"]) == ("0", "0")
    assert float(better["held_out_loss_high"]) < 0 < float(better["held_out_loss_detectable"])
    assert float(better["held_out_loss_t500"]) > 0
    assert float(better["paired_difference_tail"]) < 0
    assert float(better["seconds"]) == pytest.approx(4 + 0.5 + 20 + 0.4)
    assert better["lora_bytes"] == "1000000" and better["peak_memory_device"] == ""
    assert {row["status"] for row in rows} == {"complete", "failed", "missing"}


def test_comparison_csv_holds_no_formula(tmp_path):
    sweep = SweepBuilder(tmp_path).base(2).value("=cmd|' /C calc'!A0", name="x").value("-1")
    text = comparison_text(judge(load_sweep(sweep.write())))
    values = [row["value"] for row in csv.DictReader(io.StringIO(text))]
    assert values[2:] == ["'=cmd|' /C calc'!A0", "-1"]


def test_figures_are_pictures_of_a_readable_size(report):
    for name in FIGURES:
        with Image.open(report / f"{name}.png") as picture:
            assert picture.width == 1400 and picture.height > 300, name


def test_one_value_and_no_measurements_still_make_a_report(tmp_path):
    sweep = SweepBuilder(tmp_path).base(2, held_out=False).value("8", held_out=False)
    folder = sweep.write()
    for run in ("base", "base-2", "network.dim=8"):
        (folder / run / "metrics.csv").unlink()
    text = build_report(folder).page.read_text(encoding="utf-8")
    assert "No verdict on network.dim" in text and "metrics.csv is missing" in text


def test_a_sweep_in_which_all_failed_still_makes_a_report(tmp_path, quick):
    sweep = SweepBuilder(tmp_path).base(2, status="failed", error="disk full")
    sweep.value("8", status="missing")
    assert "disk full" in build_report(sweep.write()).page.read_text(encoding="utf-8")


def test_a_hundred_values_fit_on_one_page(tmp_path):
    sweep = SweepBuilder(tmp_path, parameter="optimizer.lr", base_value="1.0", epochs=4).base(2)
    for index in range(1, 101):
        sweep.value(f"{index / 1000:g}", effect=0.0001 * index)
    page = build_report(sweep.write()).page
    assert page.stat().st_size < MAX_PAGE_BYTES
    assert len(Page(page.read_text(encoding="utf-8")).all("circle")) == 100


def test_more_than_eight_values_that_are_no_numbers_are_drawn_in_order(tmp_path):
    sweep = SweepBuilder(tmp_path, parameter="schedule", base_value="cosine", epochs=3).base(2)
    for index in range(10):
        sweep.value(f"schedule {index} $\\alpha$ 猫")
    assert build_report(sweep.write()).page.is_file()


def test_large_grids_are_reduced_to_their_budget(tmp_path):
    path = tmp_path / "grid.png"
    noise = Image.effect_noise((1500, 1500), 90).convert("RGB")
    noise.save(path)
    small = embed_file(path, 200_000)
    assert len(small.address) < 200_100 and small.reduced


def test_a_grid_that_is_no_picture_is_named_not_fatal(tmp_path, quick):
    sweep = SweepBuilder(tmp_path).base(2).value("8")
    folder = sweep.write()
    sweep.grid().write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    page = build_report(folder).page.read_text(encoding="utf-8")
    assert "grid_pocket-graphic_simple.png is left out" in page


def test_the_command_names_the_launcher_that_trained_the_sweep(tmp_path):
    launcher = ["hydra/launcher=stacked", "hydra.launcher.stack=3"]
    sweep = SweepBuilder(tmp_path, sweep_settings={"launcher": launcher}).base(2).value("8")
    told = command(judge(load_sweep(sweep.write())))
    assert told.endswith("data=person hydra/launcher=stacked hydra.launcher.stack=3")


def test_a_secret_on_the_command_line_is_hidden(tmp_path, quick):
    sweep = SweepBuilder(tmp_path).base(2).value("8")
    folder = sweep.write()
    path = folder / "sweep.json"
    text = path.read_text("utf-8").replace('"model=pocket"', '"+logger.wandb.api_key=abc123"')
    path.write_text(text, encoding="utf-8")
    page = build_report(folder).page.read_text(encoding="utf-8")
    assert "abc123" not in page and "api_key=(hidden)" in page


def test_a_report_that_cannot_be_written_is_one_clear_error(tmp_path):
    folder = SweepBuilder(tmp_path).base(2).value("8").write()
    (folder / "report").write_text("a file is in the way", encoding="utf-8")
    with pytest.raises(LabError, match="report"):
        build_report(folder)


def test_the_same_folder_gives_the_same_report(tmp_path, quick):
    folder = SweepBuilder(tmp_path, epochs=3).base(2).value("8").write()
    first = build_report(folder).page.read_bytes()
    assert build_report(folder).page.read_bytes() == first


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    command = [sys.executable, "-m", "lora_lab.study", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_command_prints_the_first_sentence_then_the_page_and_ends_with_0(
    tmp_path, capsys, quick
):
    folder = SweepBuilder(tmp_path, epochs=3).base(2).value("8").write()
    assert main([str(folder)]) == 0
    heading = (folder / "report" / "report.md").read_text(encoding="utf-8").splitlines()[0]
    page = folder / "report" / "index.html"
    assert capsys.readouterr().out.splitlines() == [heading.removeprefix("# "), str(page)]


def test_a_sentence_is_one_line_that_every_terminal_can_show(monkeypatch):
    stdout = io.TextIOWrapper(io.BytesIO(), "ascii", newline="")
    monkeypatch.setattr(sys, "stdout", stdout)
    tell_report("猫\x1b[31m\nis worse (−2 %).", Path("index.html"))
    told = b"\\u732b?[31m is worse (\\u22122 %).\nindex.html\n"
    assert stdout.buffer.getvalue() == told


def test_a_wrong_folder_ends_with_2_and_one_line():
    result = run_command("no/such/folder")
    assert result.returncode == 2
    assert result.stderr == "error: no/such/folder is not a folder; name the folder of a sweep\n"


def test_no_folder_at_all_ends_with_2():
    assert run_command().returncode == 2


def test_a_damaged_sweep_ends_with_1(tmp_path, capsys):
    (tmp_path / "sweep.json").write_text("{", encoding="utf-8")
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_loads_neither_torch_nor_matplotlib_to_refuse_a_folder():
    code = (
        "import sys; from lora_lab.study.__main__ import main; main(['nowhere']);"
        "print(*{'torch', 'lightning', 'diffusers', 'matplotlib'} & set(sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == ""
