"""Identity in a report: its share of the way to real pictures, which are one click away."""

import csv
import io
import re
from pathlib import Path

import pytest
from PIL import Image

from lora_lab.run_folder.scores_file import SCORES_FILE, Anchors, read_anchors, write_scores
from lora_lab.study import figures
from lora_lab.study.judge.verdict import judge
from lora_lab.study.read.load import load_sweep
from lora_lab.study.read.real_pictures import real_pictures
from lora_lab.study.report.build import build_report
from lora_lab.study.report.comparison import comparison_text
from lora_lab.study.report.gallery import MOST_REAL, real_gallery
from lora_lab.study.report.table import legend, make_table
from study_sweep_builder import SweepBuilder

ANCHORS = {"identity_clip": Anchors(0.5, 0.9)}
GONE = {"base": 0.8, "network.dim=8": 0.7}


def scored(folder: Path, anchors=ANCHORS) -> Path:
    """A sweep of which every run has image scores around a mean of its value's."""
    sweep = SweepBuilder(folder, seed_spread=0.004).base(3, settings={"data.dir": str(folder)})
    sweep.values("8", 3, settings={"data.dir": str(folder)}).write()
    for run in folder.glob("*/run.json"):
        mean = next(m for name, m in GONE.items() if run.parent.name.startswith(name))
        units = {(f"prompt {i}", "1"): mean + 0.01 * (i - 3.5) for i in range(8)}
        write_scores(run.parent / SCORES_FILE, {}, {"identity_clip": units}, anchors)
    return folder


def test_identity_is_told_as_a_share_of_the_way_from_the_bare_base_to_real_pictures(tmp_path):
    study = judge(load_sweep(scored(tmp_path)))
    result = study.values[0].result("identity_clip")
    assert result.way == pytest.approx(0.5)
    assert result.way_of(result.base_mean) == pytest.approx(0.75)
    told = dict(legend(study))["Identity (CLIP)"]
    assert told.endswith(
        "The bare base reaches 0.5, real pictures of the subject among each other 0.9. "
        "Share of this way: 16: 75 % and 8: 50 %."
    )
    rows = list(csv.DictReader(io.StringIO(comparison_text(study))))
    figures = [[float(row[f"identity_clip_{n}"]) for n in ("floor", "ceiling")] for row in rows]
    assert figures == [[0.5, 0.9]] * 6
    ways = [float(row["identity_clip_way"]) for row in rows]
    assert ways == pytest.approx([0.75] * 3 + [0.5] * 3)


def test_the_base_stands_before_the_values_and_its_other_seeds_after_them(tmp_path):
    _, rows = make_table(judge(load_sweep(scored(tmp_path))))
    assert [row.label for row in rows] == ["16 (base)", "8", "16 (base-2)", "16 (base-3)"]


@pytest.mark.parametrize("anchors", [{}, {"identity_clip": Anchors(0.9, 0.5)}])
def test_without_a_way_none_is_told(tmp_path, anchors):
    study = judge(load_sweep(scored(tmp_path, anchors)))
    assert "of this way" not in dict(legend(study))["Identity (CLIP)"]


def test_anchors_that_are_not_finite_are_not_kept(tmp_path):
    path = tmp_path / SCORES_FILE
    write_scores(path, {}, {}, {"a": Anchors(0.1, 0.2), "b": Anchors(0.1, float("nan"))})
    assert read_anchors(path) == {"a": Anchors(0.1, 0.2)}
    path.write_text('{"anchors": {"a": [1]}}')
    assert read_anchors(path) == {}


def pictures(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (40, 30), (5 * index, 90, 120)).save(folder / f"{index:02d}.png")
    (folder / "00.mask.png").write_bytes((folder / "00.png").read_bytes())
    (folder / "00.txt").write_text("a caption")


def test_real_pictures_stand_in_the_page_one_click_away(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "DRAW", {"cost": figures.DRAW["cost"]})
    pictures(tmp_path / "held_out" / "1_zqx person", 3)
    (tmp_path / "held_out" / "1_zqx person" / "broken.png").write_text("no picture")
    page = build_report(scored(tmp_path)).page.read_text(encoding="utf-8")
    (real,) = re.findall(r"<details class=.more real.>.*?</details>", page, re.DOTALL)
    assert "not trained on (3)</summary>" in real
    assert len(re.findall(r'src="data:image/png;base64,', real)) == 3


def test_of_many_real_pictures_some_are_shown(tmp_path):
    pictures(tmp_path / "held_out", 2 * MOST_REAL)
    assert len(real_gallery(judge(load_sweep(scored(tmp_path))))) == MOST_REAL


def test_a_folder_of_its_own_goes_before_that_of_the_data(tmp_path):
    for name in ("data/held_out", "other"):
        pictures(tmp_path / name, 1)
    settings = {"data.dir": str(tmp_path / "data"), "data.held_out_dir": "null"}
    assert real_pictures(settings) == [tmp_path / "data/held_out/00.png"]
    settings["data.held_out_dir"] = str(tmp_path / "other")
    assert real_pictures(settings) == [tmp_path / "other/00.png"]
    settings["data.held_out_dir"] = str(tmp_path / "gone")
    assert real_pictures(settings) == real_pictures({}) == []
