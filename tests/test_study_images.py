"""The images of a report: thumbnails in a budget, links, what a cell says; the Markdown twin."""

import json
import re
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from lora_lab.run_folder.saved_loras import run_share
from lora_lab.study import figures
from lora_lab.study.report.build import build_report
from lora_lab.study.report.pictures import make_thumbnails
from study_sweep_builder import SweepBuilder, fingerprints

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}$x^2$'


@pytest.fixture
def quick(monkeypatch):
    """Draws one figure instead of all."""
    monkeypatch.setattr(figures, "DRAW", {"cost": figures.DRAW["cost"]})


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with good, failed, missing and hostile values, and a broken image."""
    sweep = SweepBuilder(tmp_path_factory.mktemp("sweep"), parameter="network.dim<b>")
    sweep.base(2).value("8", effect=-0.03).value(HOSTILE, name="hostile")
    sweep.value("0", status="failed", error=HOSTILE, name="failed")
    sweep.value("64", status="missing").value("4", inputs=fingerprints(latents="x"))
    folder = sweep.write()
    sweep.grid(kind="simple")
    sweep.images()
    broken = folder / "network.dim<b>=8" / "images" / "pocket-graphic" / "simple" / "00000080.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    return build_report(folder).page.parent


@pytest.fixture(scope="module")
def page(report):
    return (report / "index.html").read_text(encoding="utf-8")


def explorer_data(page):
    return json.loads(page.split('id="image-data">')[1].split("</script>")[0])


def test_prompts_with_markup_reach_the_page_as_they_were(page):
    """Parsed as JSON they are what was asked for, and none of it ended the script element."""
    texts = [prompt["text"] for prompt in explorer_data(page)["prompts"]]
    assert texts[0] == "a portrait, simple </script><b>\"'&amp; 猫"


def test_every_image_has_a_thumbnail_and_a_relative_link_to_its_file(page, report):
    cells = explorer_data(page)["cells"].values()
    assert len(cells) == 10 * 5
    for data, href, *_ in cells:
        assert (report / unquote(href)).is_file(), href
        assert data or "00000080.png" in href


def test_an_image_that_is_no_picture_is_named_in_its_cell_and_above(page):
    problems = [cell[4] for cell in explorer_data(page)["cells"].values() if cell[4]]
    assert problems == ["can’t be read"]
    assert "simple/00000080.png can’t be read as a picture." in page


def test_a_failed_value_has_a_row_that_says_so(page):
    rows = {row["label"]: row["missing"] for row in explorer_data(page)["rows"]}
    assert rows["0"] == "run failed" and rows["64"] == "run missing"


def test_the_markdown_twin_escapes_and_links(report):
    text = (report / "report.md").read_text(encoding="utf-8")
    outside_of_code = [line for line in text.splitlines() if not line.startswith("    ")]
    assert not re.search(r"<(script|b|img)", "\n".join(outside_of_code))
    assert "| 8 | ✓ better |" in text
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (report / unquote(link)).is_file(), link


def test_a_moved_sweep_still_shows_its_files(tmp_path, quick):
    sweep = SweepBuilder(tmp_path / "here", epochs=3).base(2).value("8")
    sweep.write()
    sweep.images()
    build_report(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    page = (tmp_path / "there" / "report" / "index.html").read_text(encoding="utf-8")
    for _, href, *_ in explorer_data(page)["cells"].values():
        assert (tmp_path / "there" / "report" / unquote(href)).is_file()


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Pictures that no coder makes small."""
    folder, paths = tmp_path_factory.mktemp("noise"), []
    for index in range(40):
        pixels = np.random.default_rng(index).integers(0, 255, (160, 160, 3), np.uint8)
        paths.append(folder / f"{index}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.mark.parametrize("budget", [4_000_000, 400_000])
def test_all_thumbnails_fit_into_the_budget(noise, budget):
    made = make_thumbnails(noise, budget)
    assert list(made) == noise
    assert sum(len(one) for one in made.values() if one) <= budget


def test_what_the_smallest_thumbnails_cannot_hold_is_left_out_from_the_end(noise):
    made = make_thumbnails(noise, 40_000)
    assert 0 < len(made) < len(noise) and list(made) == noise[: len(made)]


@pytest.mark.parametrize(("step", "share"), [(5, 0.1), (14, 0.3), (43, 0.9), (48, 1.0), (1, 0.1)])
def test_a_save_stands_for_its_planned_share_of_the_run(step, share):
    assert run_share(step, 48, 0.1) == pytest.approx(share)
