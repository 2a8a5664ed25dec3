import csv
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lora_lab.data.inputs import SharedInputs
from lora_lab.run_folder.folder import Refused, RunFolder, State
from lora_lab.study.judge.comparable import FINGERPRINTS
from lora_lab.study.read.held_out_file import read_image_losses
from lora_lab.training.callbacks.cost import Cost
from lora_lab.training.callbacks.metrics_csv import COLUMNS
from train import train
from train_setup import train_config


@pytest.fixture(scope="module")
def shared() -> SharedInputs:
    return SharedInputs()


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, tiny_base, tiny_person, shared) -> Path:
    """A complete run of two epochs, 6 steps, saved after steps 3 and 6."""
    folder = tmp_path_factory.mktemp("run")
    train(train_config(tiny_base, tiny_person), folder, shared)
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def final_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "lora" / "lora.safetensors")


def assert_same_bytes(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


def test_a_run_leaves_its_files(run_dir):
    names = sorted(path.name for path in (run_dir / "lora").iterdir())
    steps = [f"lora-step{step:08d}.safetensors" for step in (3, 6)]
    assert names == [*steps, "lora.safetensors"]
    assert not (run_dir / "last.ckpt").exists()


def test_metrics_have_the_columns_and_a_row_for_each_step(run_dir):
    table = rows(run_dir)
    assert tuple(table[0]) == COLUMNS
    assert [int(row["step"]) for row in table] == list(range(1, 7))
    assert [row["loss/epoch"] != "" for row in table] == [False, False, True] * 2
    assert [row["val/loss"] != "" for row in table] == [False, False, True] * 2


def test_loss_of_an_epoch_is_the_mean_of_its_steps(run_dir):
    table = rows(run_dir)
    mean = sum(float(row["loss/step"]) for row in table[3:]) / 3
    assert float(table[5]["loss/epoch"]) == pytest.approx(mean)


def test_rate_is_that_of_the_step_itself(run_dir):
    """Cosine over 6 steps, with the d from before the step."""
    for index, row in enumerate(rows(run_dir)):
        cosine = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * index / 6, dtype=torch.float64)))
        assert float(row["dlr/unet"]) == pytest.approx(float(row["d"]) * float(cosine))


def test_d_stays_and_then_grows_by_the_growth_rate(run_dir):
    d = [float(row["d"]) for row in rows(run_dir)]
    assert d[:2] == [1e-6, 1e-6]
    factors = [later / sooner for sooner, later in pairwise(d[2:])]
    assert factors == pytest.approx([1.02] * 3, rel=1e-12)


def test_every_trained_matrix_moves(run_dir):
    """All but the text encoder's last layer, which clip skip 2 leaves out of the output."""
    up = {k: t for k, t in final_tensors(run_dir).items() if k.endswith("lora_up.weight")}
    still = [key for key, tensor in up.items() if not tensor.any()]
    assert still and all("encoder_layers_2_" in key for key in still)


def test_run_json_says_what_happened(run_dir):
    facts = json.loads((run_dir / "run.json").read_text())
    assert facts["status"] == "complete" and facts["error"] is None
    assert set(facts["fingerprints"]) == set(FINGERPRINTS)
    assert facts["steps"] == 6 and facts["epochs"] == 2 and facts["seed"] == 1234
    assert facts["lora_bytes"] == (run_dir / "lora" / "lora.safetensors").stat().st_size
    assert facts["seconds"]["step_median"] > 0 and facts["peak_memory_bytes"]["process"] > 1e7


def image_losses(folder: Path) -> dict[tuple[int, str], dict[tuple[str, str], float]]:
    found: dict[tuple[int, str], dict[tuple[str, str], float]] = {}
    with (folder / "held_out.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            part = found.setdefault((int(row["step"]), row["set"]), {})
            part[row["image"], row["timestep"]] = float(row["loss"])
    return found


def test_every_held_out_image_is_measured_at_every_timestep_at_the_last_save_alone(run_dir):
    """Three held-out images; five timesteps."""
    measured = image_losses(run_dir)
    counts = {key: len(losses) for key, losses in measured.items()}
    assert counts == {
        **{(0, "held_out"): 5, (0, "training"): 5},
        **{(3, "held_out"): 5},
        **{(6, "held_out"): 15, (6, "training"): 5},
    }
    for step, part in measured:
        assert measured[step, part].keys() <= measured[6, part].keys()
        assert len({timestep for _, timestep in measured[step, part]}) == 5
    assert read_image_losses(run_dir / "held_out.csv").memorisation


def test_the_held_out_figures_of_all_saves_are_means_over_the_same_images(run_dir):
    measured = image_losses(run_dir)
    between = measured[3, "held_out"].keys()
    for row in (rows(run_dir)[step - 1] for step in (3, 6)):
        losses = measured[int(row["step"]), "held_out"]
        by_timestep = {timestep: losses[image, timestep] for image, timestep in between}
        for timestep, loss in by_timestep.items():
            assert float(row[f"val/loss_t{timestep}"]) == pytest.approx(loss)
        assert float(row["val/loss"]) == pytest.approx(sum(by_timestep.values()) / 5)


def test_a_run_with_one_save_has_the_mean_over_all_held_out_images(
    tmp_path, tiny_base, tiny_person, shared
):
    train(train_config(tiny_base, tiny_person, epochs=1, save_every=1.0), tmp_path, shared)
    losses = image_losses(tmp_path)[3, "held_out"]
    (row,) = rows(tmp_path)[-1:]
    assert len(losses) == 15 and float(row["val/loss"]) == pytest.approx(sum(losses.values()) / 15)


def test_held_out_loss_leaves_training_as_it_was(run_dir, tmp_path, tiny_base, tiny_person, shared):
    config = train_config(tiny_base, tiny_person, callbacks__held_out_loss=False, save_every=1.0)
    train(config, tmp_path / "run", shared)
    assert_same_bytes(final_tensors(run_dir), final_tensors(tmp_path / "run"))


def test_the_bare_base_is_measured_anew_where_its_noise_schedule_is_another(
    tmp_path, tiny_base, tiny_person
):
    config = train_config(tiny_base, tiny_person, epochs=1)
    objective = replace(config.objective, zero_terminal_snr=True)
    other = replace(config, objective=objective)
    shared = SharedInputs()
    train(config, tmp_path / "first", shared)
    train(config, tmp_path / "again", shared)
    train(other, tmp_path / "after", shared)
    train(other, tmp_path / "alone", SharedInputs())
    first, again, after, alone = (
        (tmp_path / name / "held_out.csv").read_text()
        for name in ("first", "again", "after", "alone")
    )
    assert first == again and len(shared.bare_losses) == 2
    assert after == alone and after != first


def test_reuse_asks_for_the_same_settings_and_inputs(run_dir, tiny_base, tiny_person, shared):
    config = train_config(tiny_base, tiny_person)
    assert RunFolder.open(run_dir, config, shared.fingerprints).is_complete
    same = train_config(tiny_base, tiny_person, debug=True, overwrite=True)
    assert RunFolder.open(run_dir, same, shared.fingerprints).is_complete
    other = train_config(tiny_base, tiny_person, network__dim=8)
    with pytest.raises(Refused, match=r"network\.dim: 4 → 8"):
        RunFolder.open(run_dir, other, shared.fingerprints)
    assert RunFolder.open(run_dir / "none", config, shared.fingerprints).state is State.NEW


def test_the_base_is_as_before_after_a_run(run_dir, shared):
    (base,) = shared.bases.values()
    names = [name for name, _ in base.unet.named_modules() if "lora" in name]
    assert names == [] and not any(p.requires_grad for p in base.unet.parameters())


def test_lightnings_callbacks_find_the_figures_by_name(tmp_path, tiny_base, tiny_person, shared):
    """As EarlyStopping and ModelCheckpoint do."""
    seen = {}

    def keep(self, trainer, pl_module):
        seen.update(trainer.callback_metrics)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cost, "on_train_end", keep)
        train(train_config(tiny_base, tiny_person, epochs=1), tmp_path, shared)
    (row,) = rows(tmp_path)[-1:]
    for name in ("loss/step", "loss/epoch", "val/loss", "dlr/unet"):
        assert float(seen[name]) == pytest.approx(float(row[name]), rel=1e-6)
