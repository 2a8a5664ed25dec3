"""The data report: what it counts, what it finds, and what it leaves in the folder."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from command_line import call, tiny_arguments
from lora_lab.checkpoint.base_model import BaseModel, load_base
from lora_lab.config import TrainConfig
from lora_lab.data_report.contact_sheet import FLAG, draw_contact_sheet
from lora_lab.data_report.facts import DataReport, gather
from lora_lab.data_report.quality import laplacian_variance, near_groups, perceptual_hash
from lora_lab.data_report.write import table, write_report
from train import main
from train_setup import train_config


def drawing(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Shapes that differ much from seed to seed."""
    choose = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(choose.integers(0, 256, 3).tolist()))
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = (int(choose.integers(0, side)) for side in size)
        color = tuple(choose.integers(0, 256, 3).tolist())
        pen.ellipse((x - 9, y - 9, x + 9, y + 9), fill=color, outline="black")
    return image


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> BaseModel:
    return load_base(str(tiny_base), parts=())


@pytest.fixture
def config(tmp_path: Path, tiny_base: Path) -> TrainConfig:
    """Two concepts with one of every finding, and two sizes."""
    train = tmp_path / "set" / "train"
    one, two = train / "3_zqx person", train / "1_sks dog"
    held_out = tmp_path / "set" / "held_out" / "1_zqx person"
    for folder in (one, two, held_out):
        folder.mkdir(parents=True)
    for index in range(4):
        drawing(index).save(one / f"{index}.png")
        (one / f"{index}.txt").write_text("zqx person, red", encoding="utf-8")
    (one / "1.txt").write_text(", ".join(["<b>tag</b>"] * 40), encoding="utf-8")
    drawing(2).resize((96, 96)).save(one / "copy of 2.jpg", quality=80)
    (one / "copy of 2.txt").write_text("zqx person", encoding="utf-8")
    drawing(5).filter(ImageFilter.GaussianBlur(6)).save(two / "soft.png")
    drawing(6, (128, 32)).save(two / "wide.png")
    drawing(7, (20, 20)).save(two / "small.png")
    drawing(3).save(held_out / "h.png")
    (held_out / "h.txt").write_text("zqx person", encoding="utf-8")
    config = train_config(tiny_base, tmp_path / "set")
    return replace(config, data=replace(config.data, resolution=64))


@pytest.fixture
def report(config: TrainConfig, base: BaseModel) -> DataReport:
    return gather(config, base)


def findings(report: DataReport) -> dict[str, tuple[str, ...]]:
    return {f"{image.part} {Path(image.key).name}": image.findings for image in report.images}


def test_the_variance_of_the_laplacian_is_scipys():
    from scipy.ndimage import laplace

    grey = np.random.default_rng(0).integers(0, 256, (12, 9)).astype(np.uint8)
    expected = laplace(grey.astype(float))[1:-1, 1:-1].var()
    assert laplacian_variance(Image.fromarray(grey)) == pytest.approx(expected)


def test_near_groups_are_linked_through_a_third_image():
    hashes = [perceptual_hash(drawing(seed)) for seed in (1, 2, 1, 3)]
    assert near_groups(hashes) == [[0, 2]]
    chain = [hashes[0], hashes[0], hashes[0]]
    chain[1] = type(hashes[0])(hashes[0].hash.copy())
    chain[1].hash[0, :3] ^= True
    chain[2] = type(hashes[0])(chain[1].hash.copy())
    chain[2].hash[1, :3] ^= True
    assert chain[2] - chain[0] == 6 and near_groups(chain, 3) == [[0, 1, 2]]


def test_everything_worth_a_look_is_found(report):
    found = findings(report)
    assert found["train 0.png"] == ()
    assert found["train 1.png"] == ("caption cut off",)
    assert found["train 2.png"] == found["train copy of 2.jpg"] == ("nearly a duplicate",)
    assert found["train 3.png"] == found["held_out h.png"] == ("held out and trained on alike",)
    assert "blurred" in found["train soft.png"] and "no caption file" in found["train soft.png"]
    assert "enlarged" in found["train small.png"]
    assert "enlarged" not in found["train soft.png"]


def test_counts_and_leftovers_are_those_of_training(report, config, tiny_base):
    from lora_lab.clock import Clock
    from lora_lab.data.inputs import Inputs, SharedInputs
    from lora_lab.data.loader import PairedLoader

    assert report.concepts == {"1_sks dog": (1, 3), "3_zqx person": (3, 5)}
    sizes = {bucket.size: bucket for bucket in report.buckets}
    square = sizes[64, 64]
    assert (square.images, square.samples, square.batches, square.last_batch) == (7, 17, 5, 1)
    inputs = Inputs.load(config, SharedInputs(), Clock())
    tokenizer, objective = inputs.base.tokenizer, config.objective
    loader = PairedLoader(inputs.items, tokenizer, config.data, objective, 1, 1000, 1)
    assert report.steps_per_epoch == loader.steps_per_epoch
    assert {item.bucket for item in inputs.items} == set(sizes)


def test_the_folder_gets_page_facts_and_sheet_and_all_is_escaped(report, tmp_path):
    write_report(report, tmp_path / "out")
    page = (tmp_path / "out" / "data_report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;tag&lt;/b&gt;" in page and "<b>tag" not in page
    assert "http" not in page.replace("http-equiv", ""), "the page must need no network"
    facts = json.loads((tmp_path / "out" / "data_report.json").read_text(encoding="utf-8"))
    assert facts["findings"]["nearly a duplicate"] == 2
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.width > 1000


def test_the_sheet_frames_what_has_findings(report):
    def framed(one: DataReport) -> int:
        sheet = np.asarray(draw_contact_sheet(one))
        wanted = np.array([int(FLAG[i : i + 2], 16) for i in (1, 3, 5)])
        return int((sheet == wanted).all(axis=-1).sum())

    clean = replace(report, images=[replace(image, findings=()) for image in report.images])
    assert framed(clean) == 0 < 4 * 176 * 7 < framed(report)


def test_the_table_names_the_images_to_look_at(report):
    text = table(report)
    assert "3 × 1 '1_sks dog', 5 × 3 '3_zqx person'" in text
    assert "train 3_zqx person/1.png: caption cut off" in text
    assert "1 with an incomplete last batch" in text or "2 with an incomplete last batch" in text


def test_what_is_not_read_stands_in_the_table_and_on_the_page(config, base, tmp_path):
    concept = next((Path(config.data.dir) / "train").glob("3_*"))
    (concept / "nobody<b>.txt").write_text("zqx person")
    try:
        report = gather(config, base)
    finally:
        (concept / "nobody<b>.txt").unlink()
    name = "train/3_zqx person/nobody<b>.txt"
    assert [left.path for left in report.leftovers] == [name]
    assert f"not read: {name}: a caption without its image" in table(report)
    write_report(report, tmp_path / "out")
    page = (tmp_path / "out" / "data_report.html").read_text(encoding="utf-8")
    assert "nobody&lt;b&gt;.txt" in page


def test_the_command_leaves_a_report_and_trains_nothing(
    tiny_base, tiny_person, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "look"
    arguments = [*tiny_arguments(tiny_base, tiny_person), "data_report=true"]
    answer = call(*arguments, f"hydra.run.dir={folder}", task=main)
    assert answer.status == 0, answer.err
    assert "training images  6 (6 × 2 '2_zqx person')" in answer.out
    left = {path.name for path in folder.iterdir()}
    assert {"data_report.html", "data_report.json", "contact_sheet.png"} <= left
    assert not left & {"run.json", "lora", "metrics.csv"}
