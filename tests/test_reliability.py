"""The attacks themselves, at a small size: a kill is repaired, a broken reader is found."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lora_lab.errors import LabError
from reliability.compare import differences
from reliability.fuzz import FuzzReader, attack
from reliability.soak import growth
from reliability.targets import ActiveElements, targets
from reliability.torture import Case, main, render

SEEDS = Path(__file__).parent / "corpora" / "seeds.json"


@pytest.mark.slow
def test_six_strikes_leave_what_an_undisturbed_command_leaves(tmp_path, capsys):
    assert main(["--kills", "6", "--work", str(tmp_path)]) == 0
    assert "6 of 6 equal an undisturbed command." in capsys.readouterr().out


def test_every_difference_between_two_folders_is_named(tmp_path):
    for name, value in (("one", 1.0), ("other", 2.0)):
        lora = tmp_path / name / "run" / "lora"
        lora.mkdir(parents=True)
        save_file({"a": torch.tensor(value)}, lora / "lora.safetensors")
        (lora.parent / "metrics.csv").write_text(f"step,loss/step,seconds\n1,{value},{value}\n")
        (lora.parent / "run.json").write_text(json.dumps({"status": "complete"}))
    (tmp_path / "one" / "run" / "images").mkdir()
    (tmp_path / "one" / "run" / "images" / "a.png").write_bytes(b"x")
    assert differences(tmp_path / "one", tmp_path / "one") == []
    assert differences(tmp_path / "one", tmp_path / "other") == [
        "run/lora/lora.safetensors: 1 of 1 tensors differ",
        "run/metrics.csv: row 1, loss/step: 2.0 instead of 1.0",
        "run/images/a.png is missing",
    ]


@pytest.mark.parametrize("tolerance", [0.0, 1e-4])
@pytest.mark.parametrize("other", [torch.tensor([[1.0, float("nan")]]), torch.ones(2, 2)])
def test_no_tolerance_lets_nan_or_another_shape_pass(tolerance, other, tmp_path):
    for name, tensor in (("one", torch.ones(1, 2)), ("other", other)):
        (tmp_path / name / "lora").mkdir(parents=True)
        save_file({"a": tensor}, tmp_path / name / "lora" / "a.safetensors")
    found = differences(tmp_path / "one", tmp_path / "other", tolerance)
    assert found == ["lora/a.safetensors: 1 of 1 tensors differ"]


def test_a_tolerance_lets_last_digits_differ_and_nothing_more(tmp_path):
    up = "x.lora_up.weight"
    for name, entry, loss, pixel in (
        ("one", 1.0, 1.0, 10),
        ("near", 1.00005, 1.0005, 11),
        ("far", 1.001, 1.01, 12),
    ):
        lora = tmp_path / name / "lora"
        lora.mkdir(parents=True)
        save_file(
            {up: torch.tensor([entry]), "x.alpha": torch.tensor(16.0)}, lora / "a.safetensors"
        )
        (lora.parent / "metrics.csv").write_text(f"step,verdict,loss/step\n1,worse,{loss}\n")
        Image.new("RGB", (2, 2), (pixel, 0, 0)).save(lora.parent / "a.png")
    assert differences(tmp_path / "one", tmp_path / "near", 1e-4) == []
    assert len(differences(tmp_path / "one", tmp_path / "near")) == 3
    assert differences(tmp_path / "one", tmp_path / "far", 1e-4) == [
        "lora/a.safetensors: 1 of 2 tensors differ",
        "metrics.csv: row 1, loss/step: 1.01 instead of 1.0",
        "a.png: values differ by 2 of 255",
    ]


def test_the_table_counts_only_equal_cases():
    good = Case(1, "training", "SIGKILL", "1 s", True, -9, (), 1.0)
    bad = Case(2, "training", "SIGINT", "1 s", True, 130, ("x differs",), 1.0)
    assert "| training | 1 | 0 | 1 | 1 of 2 |" in render([good, bad])
    assert "1 of 2 equal" in render([good, bad])


def test_what_can_act_in_a_page_is_counted():
    page = ActiveElements()
    page.feed("""<p>&lt;script&gt;</p><img src=x onerror=alert(1)><script>1</script>""")
    page.feed("""<a href=" JavaScript:alert(1)">x</a><a href="#y">y</a>""")
    assert page.found == {"onerror": 1, "script": 1, "href= JavaScript:alert(1)": 1}


def test_a_reader_that_raises_another_error_is_found_with_a_small_input():
    def read(data: bytes, folder: Path) -> None:
        if b"(((" in data:
            raise ValueError("no")
        if b"[" in data:
            raise LabError("refused")

    found = attack(FuzzReader("reader", (b"a [b] c", b"d"), read), 400, 1)
    assert "ValueError" in found.problem and "(((" in found.problem
    assert found.refused > 0


def test_a_reader_that_hangs_is_found():
    def read(data: bytes, folder: Path) -> None:
        while b"x" in data:
            pass

    found = attack(FuzzReader("reader", (b"x",), read, seconds=0.05), 3, 1)
    assert "TooSlow" in found.problem


NAMES = (
    *("prompt", "wildcard file", "caption", "metadata.jsonl", "PNG parameters", "PNG file"),
    *("image of a data folder", "overrides", "kohya's JSON", "kohya's TOML", "LoRA file, imported"),
    *("LoRA file", "checkpoint header", "event file", "sweep.json", "run.json", "metrics.csv"),
    *("held_out.csv", "scores", "config.yaml", "blind answers", "PNG settings"),
    *("kohya's logs, compared", "a checkpoint's configs", "metrics.csv on resume"),
    *("last.ckpt", "cached latents", "textual inversion"),
)


@pytest.fixture(scope="module")
def readers(tmp_path_factory) -> dict[str, FuzzReader]:
    seeds = json.loads(SEEDS.read_text(encoding="utf-8"))
    known = {name: tuple(text.encode() for text in texts) for name, texts in seeds.items()}
    return {target.name: target for target in targets(known, tmp_path_factory.mktemp("seeds"))}


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_lets_only_our_own_errors_out(name, readers):
    assert attack(readers[name], 40, 11).problem == ""


def test_every_reader_but_the_report_is_tested_here(readers):
    assert set(readers) - set(NAMES) == {"report"}


def test_growth_is_that_of_the_second_half():
    seconds = np.arange(100.0)
    memory = np.where(seconds < 50, 1e6 * seconds, 5e7 + 1e3 * seconds)
    rows = np.stack([seconds, memory, np.full(100, 9.0), 10 * seconds], axis=1)
    assert growth(rows) == pytest.approx([49e3, 0, 490], abs=1e-3)
