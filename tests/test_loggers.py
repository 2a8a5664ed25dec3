import pytest

from lora_lab.config import LoggerConfig, WandbConfig
from lora_lab.loggers import build_loggers, finish, public_settings
from train_setup import train_config


@pytest.fixture
def config(tiny_base, tiny_person):
    logger = LoggerConfig(True, True, WandbConfig(True, "test", "sweep", "offline"))
    return train_config(tiny_base, tiny_person, logger=logger)


def test_tensorboard_and_wandb_log_at_once_offline(config, tmp_path):
    """The group that the run joins is read back from wandb's own run."""
    loggers = build_loggers(config, tmp_path)
    assert loggers[1].experiment.group == "sweep"
    for logger in loggers:
        logger.log_metrics({"loss/step": 0.5}, step=1)
    finish(loggers, ok=True)
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    from wandb import run

    assert run is None


def test_no_path_of_this_machine_is_logged(config, tmp_path):
    text = str(public_settings(config))
    assert config.data.dir not in text and config.model.checkpoint not in text


def test_csv_alone_needs_no_logger(tiny_base, tiny_person, tmp_path):
    assert build_loggers(train_config(tiny_base, tiny_person), tmp_path) == []
