"""Fixtures that more than one test file needs: a tiny base checkpoint and a tiny person."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
# Tests run side by side, a process a core; PyTorch reads this once, when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest

from tiny_model import make_tiny_base
from tiny_person import make_tiny_person


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with random weights. Read it; a test that changes it copies it first."""
    return make_tiny_base(tmp_path_factory.mktemp("tiny-base"))


@pytest.fixture(scope="session")
def tiny_person(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kohya data folder: train/ with 6 images, held_out/ with 3, 32 px, captions beside them."""
    return make_tiny_person(tmp_path_factory.mktemp("tiny-person"))


@pytest.fixture(scope="module")
def two_timesteps():
    """Measures held-out losses at two timesteps instead of five: that was a third of runs' time."""
    from lora_lab.data import probes
    from lora_lab.training.callbacks import held_out_loss

    with pytest.MonkeyPatch.context() as patch:
        for module in (probes, held_out_loss):
            patch.setattr(module, "TIMESTEPS", (100, 900))
        yield


@pytest.fixture(scope="module")
def one_figure():
    """Draws one figure in each report instead of seven: they were a third of sweep tests' time."""
    from lora_lab.study import figures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "DRAW", {"cost": figures.DRAW["cost"]})
        yield
