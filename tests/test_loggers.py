import csv
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lora_lab.config import LoggerConfig, WandbConfig
from lora_lab.loggers.build import build_loggers, log_images, public_settings, running_loggers
from lora_lab.loggers.wandb_run import Job, LoggedImage, answers, mode_of, start, stored_id
from train import train
from train_setup import train_config
from wandb_file import OfflineRun

HOSTILE = "<script>alert(1)</script> ${oc.env:HOME} =cmd|x \x1b[31m"
FAKE_KEY = "1234567890abcdef1234567890abcdef12345678"


@pytest.fixture
def config(tiny_base, tiny_person):
    logger = LoggerConfig(True, WandbConfig(True, "test", "sweep", True, "offline"))
    return train_config(tiny_base, tiny_person, logger=logger)


@pytest.fixture(scope="module")
def run_dir(tiny_base, tiny_person, tmp_path_factory):
    """A run that was killed after step 3 and went on from step 2 to step 4, offline."""
    folder = tmp_path_factory.mktemp("sweep") / "network.dim=8"
    logger = LoggerConfig(True, WandbConfig(True, "test", "sweep", True, "offline"))
    config = train_config(tiny_base, tiny_person, logger=logger)
    (folder / "lora").mkdir(parents=True)
    for name in ("lora-step00000002", "lora"):
        path, facts = folder / "lora" / f"{name}.safetensors", {"ss_max_train_steps": "4"}
        save_file({"weight": np.ones(len(name), np.float32)}, path, facts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_API_KEY", FAKE_KEY)
        loggers = build_loggers(config, folder)
        log_steps(folder, loggers, [1, 2, 3])
        picture = folder / "images" / "step2.png"
        picture.parent.mkdir()
        Image.new("RGB", (8, 8), "red").save(picture)
        loggers[1].run.run._finish()  # as after a kill: neither artifacts nor an end of ours
        with running_loggers(config, folder, resumed=True) as loggers:
            log_steps(folder, loggers, [3, 4])
            log_images(loggers, {"samples/simple": LoggedImage(picture, HOSTILE)}, 4)
    return folder


def log_steps(folder, loggers, steps):
    """What the callback of metrics.csv does."""
    with (folder / "metrics.csv").open("a", newline="") as file:
        for step in steps:
            if step == 1:
                csv.writer(file).writerow(["step", "loss/step"])
            csv.writer(file).writerow([step, step / 10])
            for logger in loggers:
                logger.log_metrics({"loss/step": step / 10}, step=step)


@pytest.fixture(scope="module")
def parts(run_dir):
    """The offline files, the older one first."""
    return [OfflineRun(path) for path in sorted(run_dir.glob("wandb/offline-run-*/*.wandb"))]


def test_a_resumed_run_goes_on_under_its_own_id(run_dir, parts):
    assert len(parts) == 2
    assert {part.run.run_id for part in parts} == {stored_id(run_dir, "train")}


def test_the_last_offline_part_holds_every_step(parts):
    """wandb sync overwrites a run with its later part, so that one must be whole."""
    losses = {step: row["loss/step"] for step, row in parts[1].history.items()}
    assert losses == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}


def test_the_superseded_part_is_not_synced(parts):
    marker = [part.path.with_name(part.path.name + ".synced").is_file() for part in parts]
    assert marker == [True, False]


def test_group_and_job_type_are_those_of_the_sweep(parts):
    run = parts[1].run
    assert (run.run_group, run.job_type, run.display_name) == ("sweep", "train", "network.dim=8")


def test_images_and_figures_of_a_step_are_one_row(parts, run_dir):
    row = parts[1].history[4]
    assert row["loss/step"] == 0.4
    path = next(value for key, value in row.items() if key.endswith("path"))
    assert (parts[1].path.parent / "files" / path).is_file()


def test_a_caption_that_would_be_run_elsewhere_arrives_as_the_text_that_it_is(parts):
    row = parts[1].history[4]
    assert [value for key, value in row.items() if key.endswith("caption")] == [HOSTILE]


def test_every_file_of_an_artifact_is_in_the_run_folder(parts, run_dir):
    loras = parts[1].artifacts
    aliases = [set(lora.aliases) - {"latest"} for lora in loras]
    assert aliases == [{"step-2", "50%"}, {"step-4", "100%", "final"}]
    assert {lora.name for lora in loras} == {f"{run_dir.parent.name}-network.dim-8-lora"}
    for lora in loras:
        assert [entry.path for entry in lora.manifest.contents] == ["lora.safetensors"]
        paths = [os.path.realpath(entry.local_path) for entry in lora.manifest.contents]
        assert all(path.startswith(os.path.realpath(run_dir)) for path in paths)


def test_no_key_is_written_anywhere(run_dir):
    files = [path for path in run_dir.rglob("*") if path.is_file()]
    assert files and not [path for path in files if FAKE_KEY.encode() in path.read_bytes()]


def test_tensorboard_shows_the_image_at_its_step(run_dir):
    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Images("samples/simple")] == [4]
    assert [event.step for event in events.Scalars("loss/step")] == [1, 2, 3, 3, 4]


def test_a_real_training_logs_its_curve_and_every_lora(config, tmp_path):
    result = train(config, tmp_path / "run")
    (path,) = (tmp_path / "run").glob("wandb/offline-run-*/*.wandb")
    run = OfflineRun(path)
    assert sorted(run.history) == list(range(1, result.facts["steps"] + 1))
    assert all("loss/step" in row and "dlr/unet" in row for row in run.history.values())
    aliases = set().union(*(lora.aliases for lora in run.artifacts))
    assert {"50%", "100%", "final", f"step-{result.facts['steps']}"} <= aliases
    assert not (result.path / "run.json").read_text(encoding="utf-8").count('"failed"')


def test_a_run_that_begins_anew_gets_another_id(config, tmp_path):
    ids = []
    for _ in range(2):
        with running_loggers(config, tmp_path, resumed=False):
            pass
        ids.append(stored_id(tmp_path, "train"))
    assert len(set(ids)) == 2


def test_the_environment_is_as_before_when_a_run_has_ended(config, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    with running_loggers(config, tmp_path, resumed=False):
        pass
    assert "WANDB_DATA_DIR" not in os.environ
    from wandb import run

    assert run is None


def test_no_path_of_this_machine_is_logged(config):
    text = str(public_settings(config))
    assert config.data.dir not in text and config.model.checkpoint not in text


def test_csv_alone_needs_no_logger(tiny_base, tiny_person, tmp_path):
    assert build_loggers(train_config(tiny_base, tiny_person), tmp_path) == []


def test_a_run_that_was_cut_off_does_not_keep_the_files_of_the_next(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    settings = WandbConfig(True, "test", None, True, "offline")
    for name in ("cut-off", "next"):
        (tmp_path / name).mkdir()
        run = start(settings, tmp_path / name, Job("train", name, None, {}))
        assert Path(os.environ["WANDB_DATA_DIR"]).is_relative_to(tmp_path / name)
        if name == "cut-off":
            run.run.finish()  # wandb's own end; ours never comes
    run.finish(True)


@pytest.fixture
def closed() -> str:
    """An address at which nobody listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_does_not_answer_is_noticed_at_once(closed, monkeypatch):
    monkeypatch.setattr("lora_lab.loggers.wandb_run.getproxies", dict)
    assert not answers(closed)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert answers(f"http://127.0.0.1:{server.getsockname()[1]}")


def test_a_run_is_kept_offline_when_the_server_is_out_of_reach(closed, monkeypatch, caplog):
    monkeypatch.setattr("lora_lab.loggers.wandb_run.getproxies", dict)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    import wandb

    monkeypatch.setattr(wandb.api.__class__, "api_key", "k" * 40, raising=False)
    monkeypatch.setattr(
        wandb, "setup", lambda: SimpleNamespace(settings=SimpleNamespace(base_url=closed))
    )
    assert mode_of(WandbConfig(True, "test", None, True, "auto")) == "offline"
    assert closed in caplog.text and "k" * 40 not in caplog.text
    assert mode_of(WandbConfig(True, "test", None, True, "online")) == "online"
