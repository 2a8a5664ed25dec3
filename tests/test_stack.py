"""Runs that are trained at once leave what each of them leaves alone."""

import csv
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lora_lab.config import TrainConfig
from lora_lab.data.inputs import SharedInputs
from lora_lab.data.loader import PairedLoader
from lora_lab.errors import Stopped
from lora_lab.run_folder.folder import RunFolder
from lora_lab.run_folder.locks import LOCK, hold
from lora_lab.study.judge import stacked_pairs
from lora_lab.text import caption_encoder
from lora_lab.training.callbacks.held_out_loss import HeldOutLoss
from lora_lab.training.stack import train_together
from lora_lab.training.stacked_run import StackedRun
from train import train
from train_setup import OPTIMIZER, train_config

pytestmark = pytest.mark.usefixtures("two_timesteps")

WITHOUT_D = replace(
    OPTIMIZER, d0=None, growth_rate=None, decouple=None, use_bias_correction=None, lr=1e-3
)
OPTIMIZERS = {
    "adamw": replace(WITHOUT_D, name="adamw"),
    "prodigy": replace(
        OPTIMIZER, name="prodigy", growth_rate=None, d_coef=1.0, safeguard_warmup=False
    ),
    "adafactor": replace(
        WITHOUT_D,
        name="adafactor",
        betas=None,
        eps=None,
        args={"scale_parameter": False, "relative_step": False},
    ),
}


@pytest.fixture(scope="module")
def shared() -> SharedInputs:
    return SharedInputs()


def outcome(job: Callable[[], RunFolder]) -> RunFolder | Exception:
    """As a job of a sweep: it hands its error over."""
    try:
        return job()
    except Exception as error:
        return error


def together(
    configs: dict[str, TrainConfig], folder: Path, shared: SharedInputs
) -> list[RunFolder | Exception]:
    def job(name: str, config: TrainConfig) -> Callable[[StackedRun], RunFolder | Exception]:
        return lambda run: outcome(lambda: train(config, folder / name, shared, stacked=run))

    return train_together([job(*item) for item in configs.items()], list(configs))


def loras(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "lora" / "lora.safetensors")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


WITHIN = {"d": 1e-5, "val/loss": stacked_pairs.TOLERANCE["held_out_loss"]}
"""Figure of metrics.csv -> how far it may lie from the run alone, as a share."""


def assert_same_run(one: Path, other: Path) -> None:
    """LoRA to 1e-4 of its largest entry, figures to WITHIN, others to 1e-4; the same files."""
    mine, theirs = loras(one), loras(other)
    assert mine.keys() == theirs.keys()
    largest = max(float(t.abs().max()) for k, t in mine.items() if not k.endswith("alpha"))
    for key, tensor in mine.items():
        assert (tensor - theirs[key]).abs().max() <= 1e-4 * largest, key
    for before, after in zip(rows(one), rows(other), strict=True):
        for key in before.keys() - {"seconds"}:
            assert (before[key] == "") == (after[key] == ""), key
            if before[key]:
                within = WITHIN.get(key.split("_t")[0], 1e-4)
                assert float(after[key]) == pytest.approx(float(before[key]), rel=within), key
    files = [sorted(p.relative_to(top).as_posix() for p in top.rglob("*")) for top in (one, other)]
    assert files[0] == files[1]


def variants(base: Path, person: Path, **changes: object) -> dict[str, TrainConfig]:
    """Runs that differ in what a stack must keep apart."""

    def config(**own: object) -> TrainConfig:
        return train_config(base, person, **{**changes, **own})

    names = {f"optimizer={name}": one for name, one in OPTIMIZERS.items()}
    return {
        "base": config(),
        "seed": config(seed=7),
        "dim": config(network__dim=7, network__alpha=3.0),
        "unet": config(network__train_text_encoder=False),
        "dropout": config(network__dropout=0.3, network__rank_dropout=0.2),
        "convolutions": config(network__conv_dim=2, network__conv_alpha=1.0),
        "objective": config(objective__noise_offset=0.1, objective__min_snr_gamma=0.0),
        "schedule": config(schedule__name="constant", optimizer__betas=[0.8, 0.9]),
        "clip_skip": config(model__clip_skip=1),
        **{name: config(optimizer=one) for name, one in names.items()},
    }


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_of_a_stack_equals_the_run_alone(
    accumulate, tiny_base, tiny_person, tmp_path, shared
):
    pytest.importorskip("prodigyopt")
    changes = {"trainer__accumulate_grad_batches": accumulate}
    configs = variants(tiny_base, tiny_person, **changes)
    if accumulate == 2:
        configs = {name: configs[name] for name in ("base", "seed", "dropout")}
    together(configs, tmp_path / "together", shared)
    for name, config in configs.items():
        train(config, tmp_path / "alone" / name, shared)
        assert_same_run(tmp_path / "alone" / name, tmp_path / "together" / name)
        facts = json.loads((tmp_path / "together" / name / "run.json").read_text())
        assert facts["stack"]["runs"] == len(configs)


@contextmanager
def rows_of_first_layers(shared: SharedInputs) -> Iterator[dict[str, set[tuple[int, bool]]]]:
    """Rows that a layer computed in training passes and whether with a graph, by its name."""
    (base,) = shared.bases.values()
    seen: dict[str, set[tuple[int, bool]]] = {}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("conv_in", "time_embedding", "down_blocks.0.resnets.0"):
            layer = base.unet.get_submodule(name)
            rows = seen[name.rpartition(".")[2]] = set()

            def counted(*arguments, forward=layer.forward, rows=rows):
                result = forward(*arguments)
                if torch.is_grad_enabled():
                    rows.add((len(result), result.requires_grad))
                return result

            patch.setattr(layer, "forward", counted)
        yield seen


def of_one_seed(base: Path, person: Path) -> dict[str, TrainConfig]:
    """Runs with the same images, noise and timesteps in batches of 4."""
    changes = {"network__train_text_encoder": False, "data__shuffle_caption": True}
    return {
        "one": train_config(base, person, **changes),
        "dim": train_config(base, person, **changes, network__dim=7, objective__min_snr_gamma=0.0),
        "rate": train_config(base, person, **changes, optimizer=OPTIMIZERS["adamw"]),
    }


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({}, 4),
        ({"objective__noise_offset": 0.1}, 8),
        ({"seed": 7}, 8),
        ({"network__conv_dim": 2, "network__conv_alpha": 1.0}, 4),
    ],
    ids=["equal noise", "noise offset", "another seed", "convolutions"],
)
def test_what_no_lora_touches_is_computed_once_for_equal_rows(
    changes, rows, tiny_base, tiny_person, tmp_path, shared
):
    configs = of_one_seed(tiny_base, tiny_person)
    other = train_config(
        *(tiny_base, tiny_person),
        **{"network__train_text_encoder": False, "data__shuffle_caption": True, **changes},
    )
    configs["other"] = other
    shared.base(other.model)
    with rows_of_first_layers(shared) as seen:
        together(configs, tmp_path / "together", shared)
    assert seen["conv_in"] == seen["time_embedding"] == {(rows, False)}
    touched = other.network.conv_dim is not None
    assert seen["0"] == ({(16, True)} if touched else {(rows, False)})
    for name, config in configs.items():
        train(config, tmp_path / "alone" / name, shared)
        assert_same_run(tmp_path / "alone" / name, tmp_path / "together" / name)


def test_rows_stay_shared_when_a_run_drops_out(
    tiny_base, tiny_person, tmp_path, shared, monkeypatch
):
    configs = of_one_seed(tiny_base, tiny_person)
    batch = PairedLoader.batch

    def broken(loader, epoch, index, shown):
        if threading.current_thread().name == "dim" and (epoch, index) == (2, 0):
            raise OSError("no space left on device")
        return batch(loader, epoch, index, shown)

    shared.base(configs["one"].model)
    with rows_of_first_layers(shared) as seen:
        monkeypatch.setattr(PairedLoader, "batch", broken)
        results = together(configs, tmp_path / "together", shared)
    assert "no space left" in str(results[1])
    assert seen["conv_in"] == seen["0"] == {(4, False)}
    monkeypatch.undo()
    for name in ("one", "rate"):
        train(configs[name], tmp_path / "alone" / name, shared)
        assert_same_run(tmp_path / "alone" / name, tmp_path / "together" / name)


@pytest.mark.parametrize("fails", [False, True])
def test_the_bare_base_is_measured_by_one_run_of_a_stack(
    fails, tiny_base, tiny_person, tmp_path, shared, monkeypatch
):
    """Or by the next one where the first fails."""
    measured, measure = [], HeldOutLoss._measure

    def counted(callback, trainer, module, probes):
        if probes is callback.probes.bare:
            measured.append(threading.current_thread().name)
            rows = measure(callback, trainer, module, probes)
            if fails and len(measured) == 1:
                raise OSError("no space left on device")
            return rows
        return measure(callback, trainer, module, probes)

    monkeypatch.setattr(HeldOutLoss, "_measure", counted)
    configs = of_one_seed(tiny_base, tiny_person)
    own = SharedInputs(bases=shared.bases, latents=shared.latents)  # nothing is measured yet
    results = together(configs, tmp_path, own)
    assert measured[0] == "one" and len(measured) == len(set(measured)) == (2 if fails else 1)
    assert ["no space left" in str(result) for result in results] == [fails, False, False]
    files = [(tmp_path / name / "held_out.csv").read_text() for name in ("dim", "rate")]
    first = [[line for line in file.splitlines() if line.startswith("0,")] for file in files]
    assert first[0] and first[0] == first[1]


def test_a_frozen_text_encoder_is_asked_once_for_all_runs_of_a_stack(
    tiny_base, tiny_person, tmp_path, shared, monkeypatch
):
    asked = []

    def counted(text_encoder, input_ids, *arguments, **named):
        asked.append(input_ids.numpy().tobytes())
        return encode(text_encoder, input_ids, *arguments, **named)

    encode = caption_encoder.encode_captions
    monkeypatch.setattr(caption_encoder, "encode_captions", counted)
    together(of_one_seed(tiny_base, tiny_person), tmp_path / "together", shared)
    assert asked and len(asked) == len(set(asked))


def test_a_frozen_text_encoder_answers_in_the_precision_of_the_run(
    tiny_base, tiny_person, tmp_path, shared, monkeypatch
):
    kept, add = set(), caption_encoder.KeptAnswers.add

    def noted(answers, key, hidden):
        kept.add(hidden.dtype)
        add(answers, key, hidden)

    monkeypatch.setattr(caption_encoder.KeptAnswers, "add", noted)
    config = train_config(
        *(tiny_base, tiny_person),
        network__train_text_encoder=False,
        trainer__precision="bf16-true",
        epochs=1,
    )
    together({"one": config, "two": config}, tmp_path, shared)
    assert kept == {torch.bfloat16}


@pytest.mark.slow
def test_after_100_steps_a_run_of_a_stack_equals_the_run_alone(
    tiny_base, tiny_person, tmp_path, shared
):
    configs = variants(tiny_base, tiny_person, epochs=34)
    configs = {n: configs[n] for n in ("base", "seed", "dim", "dropout", "optimizer=adamw")}
    together(configs, tmp_path / "together", shared)
    for name, config in configs.items():
        train(config, tmp_path / "alone" / name, shared)
        assert_same_run(tmp_path / "alone" / name, tmp_path / "together" / name)


def test_runs_of_unlike_lengths_saves_and_batches_find_their_way(
    tiny_base, tiny_person, tmp_path, shared
):
    """Nobody waits for a pass that never comes, and each run is as it is alone."""
    configs = {
        "often": train_config(tiny_base, tiny_person, save_every=0.1),
        "short": train_config(tiny_base, tiny_person, epochs=1),
        "small": train_config(tiny_base, tiny_person, data__batch_size=3),
    }
    together(configs, tmp_path / "together", shared)
    for name, config in configs.items():
        train(config, tmp_path / "alone" / name, shared)
        assert_same_run(tmp_path / "alone" / name, tmp_path / "together" / name)


def test_a_run_that_fails_drops_out(tiny_base, tiny_person, tmp_path, shared):
    """At once (its folder is in use) or later (its loss isn't finite)."""
    config = train_config(tiny_base, tiny_person)
    configs = {
        "held": config,
        "good": config,
        "infinite": train_config(tiny_base, tiny_person, objective__noise_offset=1e38),
        "other": train_config(tiny_base, tiny_person, seed=2),
    }
    (tmp_path / "together" / "held").mkdir(parents=True)
    with hold(tmp_path / "together" / "held" / LOCK, "wait"):
        results = together(configs, tmp_path / "together", shared)
    assert "another process" in str(results[0]) or "in use" in str(results[0])
    assert "is not finite" in str(results[2])
    for name in ("good", "other"):
        train(configs[name], tmp_path / "alone" / name, shared)
        assert_same_run(tmp_path / "alone" / name, tmp_path / "together" / name)


def test_a_signal_saves_all_runs_and_all_are_resumed(
    tiny_base, tiny_person, tmp_path, shared, monkeypatch
):
    configs = {
        "one": train_config(tiny_base, tiny_person),
        "two": train_config(tiny_base, tiny_person, seed=3, network__dim=2),
    }
    together(configs, tmp_path / "whole", shared)
    batch = PairedLoader.batch

    def interrupted(loader, epoch, index, shown):
        if (epoch, index) == (2, 0):  # step 4
            os.kill(os.getpid(), signal.SIGTERM)
        return batch(loader, epoch, index, shown)

    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(PairedLoader, "batch", interrupted)
        with pytest.raises(Stopped):
            together(configs, tmp_path / "cut", shared)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert all((tmp_path / "cut" / name / "last.ckpt").is_file() for name in configs)
    stopped = {len(rows(tmp_path / "cut" / name)) for name in configs}
    assert stopped <= {3, 4}
    together(configs, tmp_path / "cut", shared)
    for name in configs:
        whole, cut = tmp_path / "whole" / name, tmp_path / "cut" / name
        if len(stopped) == 1:
            one, other = loras(whole), loras(cut)
            assert all(torch.equal(one[key], other[key]) for key in one)
        else:  # one run took a step more before the signal reached it: the other takes it alone
            assert_same_run(whole, cut)
        assert len(rows(cut)) == 6


def test_a_run_goes_on_alone_where_its_stack_was_cut_off(
    tiny_base, tiny_person, tmp_path, shared, monkeypatch
):
    config = train_config(tiny_base, tiny_person)
    train(config, tmp_path / "alone", shared)
    batch = PairedLoader.batch

    def broken(loader, epoch, index, shown):
        if (epoch, index) == (2, 1):  # step 5, after the save of step 3
            raise OSError("no space left on device")
        return batch(loader, epoch, index, shown)

    with monkeypatch.context() as patch:
        patch.setattr(PairedLoader, "batch", broken)
        (error,) = together({"cut": config}, tmp_path, shared)
    assert "no space left" in str(error)
    train(config, tmp_path / "cut", shared)
    assert_same_run(tmp_path / "alone", tmp_path / "cut")


def test_the_base_is_as_before_after_a_stack(tiny_base, tiny_person, tmp_path, shared):
    together({"one": train_config(tiny_base, tiny_person, epochs=1)}, tmp_path, shared)
    for base in shared.bases.values():
        for part in (base.unet, base.text_encoder):
            hooks = [hook for module in part.modules() for hook in module._forward_hooks.values()]
            assert not any(hook.__module__.startswith("lora_lab") for hook in hooks)
            assert not any(parameter.requires_grad for parameter in part.parameters())


def test_ctrl_c_ends_all_runs(tiny_base, tiny_person, tmp_path, shared, monkeypatch):
    batch = PairedLoader.batch

    def interrupted(loader, epoch, index, shown):
        if (epoch, index) == (2, 0):
            os.kill(os.getpid(), signal.SIGINT)
        return batch(loader, epoch, index, shown)

    configs = {name: train_config(tiny_base, tiny_person) for name in ("one", "two")}
    monkeypatch.setattr(PairedLoader, "batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        together(configs, tmp_path, shared)
    for name in configs:
        facts = json.loads((tmp_path / name / "run.json").read_text())
        assert facts["status"] == "failed"
