"""Grids of run and sweep folders, restarts, and cells that say what went wrong."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lora_files import random_lora
from lora_lab.checkpoint.base_model import load_base
from lora_lab.config import GridConfig, SampleConfig
from lora_lab.config.sampling import AXES
from lora_lab.errors import LabError
from lora_lab.images.png_info import read_parameters, read_recipe
from lora_lab.lora_file import write_lora
from lora_lab.run_folder.saved_loras import find_rows, run_share
from lora_lab.sampling.devices import run_threads
from lora_lab.sampling.grids.draw_grids import draw_grids, refuse_missing
from sample import sample
from settings import tiny_sampling

STEPS = (4, 8)


@pytest.fixture(scope="module")
def base(tiny_base):
    return load_base(str(tiny_base))


@pytest.fixture
def sampling(tiny_base):
    return tiny_sampling(tiny_base)


def make_run(folder, base, seed=0, status="complete"):
    """A run folder as training leaves it."""
    metadata = {"ss_max_train_steps": "8", "ss_dataset_dirs": '{"3_abc cat": {"img_count": 1}}'}
    for step in STEPS:
        tensors = random_lora(base, seed=seed + step)
        write_lora(folder / "lora" / f"lora-step{step:08d}.safetensors", tensors, metadata)
    write_lora(folder / "lora" / "lora.safetensors", tensors, metadata)
    facts = {"status": status, "error": None, "steps": 8, "seconds": {"sampling": 0.0}}
    (folder / "run.json").write_text(json.dumps(facts))
    (folder / "config.yaml").write_text("save_every: 0.5\n")
    return folder


def make_sweep(folder, base):
    runs = []
    for name, value, role in (("base", "4", "base"), ("a=2", "2", "value"), ("a=8", "8", "value")):
        make_run(folder / name, base, seed=int(value))
        entry = {"name": name, "folder": name, "value": value, "role": role, "seed": 1}
        runs.append({**entry, "status": "complete", "reused": False, "error": None})
    record = {"parameter": "a", "values": ["2", "8"], "base_value": "4", "runs": runs}
    (folder / "sweep.json").write_text(json.dumps({**record, "overrides": []}))
    return folder


def images(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("images/**/*.png"))}


def test_a_sweep_gets_a_grid_of_each_kind_and_every_image(tmp_path, base, sampling):
    drawn = draw_grids(make_sweep(tmp_path, base), sampling)
    grids = drawn.grids
    assert not drawn.problems
    assert [path.name for path in grids] == [
        f"grid_{base.name}_{kind}.png" for kind in ("simple", "complex", "random")
    ]
    assert all(path.parent == tmp_path / "report" and path.is_file() for path in grids)
    assert len(images(tmp_path)) == 3 * (2 * len(STEPS) + 2)
    assert (tmp_path / "a=2" / "grids" / grids[0].name).is_file()
    assert json.loads((tmp_path / "a=2" / "run.json").read_text())["seconds"]["sampling"] > 0
    path = tmp_path / "a=2" / "images" / base.name / "random" / "00000008-2.png"
    fields = read_parameters(path)
    assert fields["Seed"] == str(sampling.random_seeds[1]) and fields["Steps"] == "3"


def test_images_that_are_there_are_kept_and_missing_ones_come_out_the_same(
    tmp_path, base, sampling
):
    draw_grids(make_run(tmp_path, base), sampling)
    before = images(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in before}
    draw_grids(tmp_path, sampling)
    assert {path: path.stat().st_mtime_ns for path in before} == times
    next(iter(before)).unlink()
    draw_grids(tmp_path, sampling)
    assert images(tmp_path) == before
    sampling.steps += 1
    draw_grids(tmp_path, sampling)
    after = images(tmp_path)
    assert all(after[path] != content for path, content in before.items())
    assert set(before.values()) < set(after.values()), "the images of other settings stay"
    sampling.steps -= 1
    draw_grids(tmp_path, sampling)
    assert {path: path.read_bytes() for path in before} == before
    assert len(images(tmp_path)) == 2 * len(before), "nothing is drawn twice"


def test_grids_of_which_nothing_changed_are_not_drawn_again(tmp_path, base, sampling):
    grids = draw_grids(make_sweep(tmp_path, base), sampling).grids
    files = [*grids, *tmp_path.rglob("grids/*.png")]
    assert len(files) == 3 + 3 * 3
    times = [path.stat().st_mtime_ns for path in files]
    draw_grids(tmp_path, sampling)
    assert [path.stat().st_mtime_ns for path in files] == times


def test_a_damaged_lora_and_one_of_nan_do_not_stop_the_others(tmp_path, base, sampling, caplog):
    folder = make_sweep(tmp_path, base)
    (folder / "a=2" / "lora" / "lora-step00000004.safetensors").write_bytes(b"cut")
    tensors = {key: tensor * torch.nan for key, tensor in random_lora(base).items()}
    write_lora(folder / "a=8" / "lora" / "lora-step00000008.safetensors", tensors, {})
    drawn = draw_grids(folder, sampling)
    assert len(drawn.grids) == 3
    with pytest.raises(
        LabError, match=r"not everything was drawn: .*not a complete safetensors file"
    ):
        refuse_missing(drawn.problems)
    assert "is not a complete safetensors file" in caplog.text and "NaN" in caplog.text
    assert len(images(folder / "a=2")) == 4 and len(images(folder / "a=8")) == 2
    assert len(images(folder / "base")) == 6


def test_a_failed_run_is_a_row_that_says_so(tmp_path, base):
    folder = make_sweep(tmp_path, base)
    (folder / "a=8" / "run.json").write_text('{"status": "failed", "error": "loss is NaN"}')
    rows = find_rows(folder)
    assert [run.problem for run in rows.runs] == ["", "", "run failed: loss is NaN"]


def test_the_bases_rows_stand_where_their_value_belongs(tmp_path, base):
    assert [run.label for run in find_rows(make_sweep(tmp_path, base)).runs] == ["2", "4", "8"]


@pytest.mark.parametrize(("step", "share"), [(4, 0.1), (8, 0.2), (13, 0.3), (42, 1.0)])
def test_a_save_is_named_by_the_share_that_was_asked_for(step, share):
    assert run_share(step, 42, 0.1) == pytest.approx(share)


def test_a_folder_that_is_neither_run_nor_sweep_is_refused(tmp_path, sampling):
    with pytest.raises(LabError, match="neither a run folder"):
        draw_grids(tmp_path, sampling)


def test_a_missing_checkpoint_is_refused_before_anything_is_drawn(tmp_path, base, sampling):
    sampling.checkpoints = [*sampling.checkpoints, "/no/such/model"]
    with pytest.raises(LabError, match="/no/such/model"):
        draw_grids(make_run(tmp_path, base), sampling)
    assert not images(tmp_path)


def test_the_subject_is_taken_from_the_lora_where_the_config_leaves_it_out(
    tmp_path, base, sampling
):
    sampling.subject = None
    draw_grids(make_run(tmp_path, base), sampling)
    path = tmp_path / "images" / base.name / "simple" / "00000008.png"
    assert read_parameters(path)["Prompt"].count("abc cat") == 1


def sample_config(sampling, **changes):
    values = dict.fromkeys(("run", "lora", "png", "rows", "columns", "pages", "prompt", "scores"))
    rest = {"count": 1, "output": "", "threads": 1, "debug": False, "sampling": sampling}
    return SampleConfig(**{**values, **rest, **changes})


def test_images_are_drawn_from_a_single_file(tmp_path, base, sampling):
    write_lora(tmp_path / "mine.safetensors", random_lora(base), {})
    lora, output = str(tmp_path / "mine.safetensors"), str(tmp_path / "out")
    prompt = "a (cat:1.2) \u2603"
    config = sample_config(sampling, lora=lora, prompt=prompt, count=2, output=output)
    paths, problems = sample(config)
    assert not problems
    assert [path.name for path in paths] == ["mine-1234.png", "mine-1235.png"]
    first, second = (np.asarray(Image.open(path)) for path in paths)
    assert first.shape == (32, 32, 3) and (first != second).any()


def test_a_lora_file_is_drawn_over_weights_and_seeds(tmp_path, base, sampling):
    write_lora(tmp_path / "mine.safetensors", random_lora(base), {})
    sampling.axes.lora_weight, sampling.axes.seed = [0.0, 0.5, 1.0], [1, 2]
    config = sample_config(
        sampling,
        lora=str(tmp_path / "mine.safetensors"),
        output=str(tmp_path / "out"),
        rows="seed",
        columns="lora_weight",
        pages="guidance",
    )
    sampling.axes.guidance = [1.0, 3.0]
    assert [path.name for path in sample(config)[0]] == [
        f"grid_{base.name}_seed-lora_weight-guidance.png",
        f"grid_{base.name}_seed-lora_weight-guidance-p2.png",
    ]
    recipes = [read_recipe(path) for path in images(tmp_path)]
    points = {(r.seed, r.lora_weight, r.guidance) for r in recipes}
    assert len(recipes) == len(points) == 2 * 3 * 2


@pytest.mark.parametrize("axis", AXES)
def test_every_axis_can_be_a_side(tmp_path, base, sampling, axis):
    other = "seed" if axis == "value" else "value"
    prompts = ["a cat", "random"] if axis == "prompt" else ["simple"]
    sampling.grids = [GridConfig("mine", axis, other, None, prompts)]
    sampling.axes.seed = [1, 2]
    sampling.axes.sampler = ["Euler", "DDIM"]
    sampling.axes.guidance = [1.0, 2.0]
    sampling.axes.lora_weight = [0.5, 1.0]
    sampling.steps = 2
    drawn = draw_grids(make_run(tmp_path, base), sampling)
    name = "checkpoints" if axis == "checkpoint" else base.name
    assert [path.name for path in drawn.grids] == [f"grid_{name}_mine.png"]
    counts = {"value": 2, "prompt": 3, "checkpoint": 1}
    assert len(images(tmp_path)) == counts.get(axis, 2) and not drawn.problems


def test_what_is_wrong_is_said_in_its_cell_and_the_rest_is_drawn(tmp_path, base, sampling):
    sampling.lora_dir, sampling.wildcards_dir = str(tmp_path), str(tmp_path)
    prompts = ["a __hair__ cat", "a <lora:none:1> cat", "((a [cat", "word " * 2000]
    sampling.grids = [GridConfig("mine", "prompt", "value", None, prompts)]
    drawn = draw_grids(make_run(tmp_path, base), sampling)
    assert len(images(tmp_path)) == 2 and len(drawn.grids) == 1
    assert len(drawn.problems) == 2
    assert "hair.txt for the wildcard __hair__ is missing" in drawn.problems[0]
    assert "holds no LoRA called none" in drawn.problems[1]


def test_a_checkpoint_that_can_not_be_read_is_a_row_that_says_so(tmp_path, base, sampling):
    broken = tmp_path / "broken"
    (broken / "unet").mkdir(parents=True)
    sampling.checkpoints = [*sampling.checkpoints, str(broken)]
    sampling.grids = [GridConfig("mine", "checkpoint", "value", None, ["simple"])]
    drawn = draw_grids(make_run(tmp_path / "run", base), sampling)
    assert len(images(tmp_path)) == 1 and len(drawn.problems) == 1
    assert [path.name for path in drawn.grids] == ["grid_checkpoints_mine.png"]


def test_a_checkpoint_can_have_a_complex_prompt_of_its_own(tmp_path, base, sampling):
    sampling.prompts.complex_for = {base.name: "a dog"}
    draw_grids(make_run(tmp_path, base), sampling)
    path = tmp_path / "images" / base.name / "complex" / "00000008.png"
    assert read_parameters(path)["Prompt"].startswith("a dog")


def test_scores_stand_under_their_images(tmp_path, base, sampling):
    folder = make_run(tmp_path / "run", base)
    draw_grids(folder, sampling)
    before = (folder / "grids" / f"grid_{base.name}_simple.png").read_bytes()
    path = tmp_path / "scores.json"
    image = folder / "images" / base.name / "simple" / "00000008.png"
    path.write_text(json.dumps({str(image.relative_to(folder)): 0.8123}))
    sample(sample_config(sampling, run=str(folder), scores=str(path)))
    assert (folder / "grids" / f"grid_{base.name}_simple.png").read_bytes() != before
    path.write_text('{"a.png": []}')
    with pytest.raises(LabError, match=r"a\.png must have a number or a text"):
        sample(sample_config(sampling, run=str(folder), scores=str(path)))


def test_a_run_is_drawn_with_the_threads_that_it_was_trained_with(tmp_path, base):
    folder = make_run(tmp_path, base)
    assert run_threads(folder) == 2
    (folder / "config.yaml").write_text("trainer: {threads: 5}\n")
    assert run_threads(folder) == 5
