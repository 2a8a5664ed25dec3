"""What is attacked: commands on a tiny model, each small enough to be run again and again.

The model has random weights and 1.5 MB, the person is a few drawn circles (tests/tiny_model.py and
tests/tiny_person.py), so a job takes a moment once the libraries are loaded.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lora_lab.metrics.image_scores import IMAGES, STORE
from lora_lab.run_folder.scores_file import SCORES_FILE
from tiny_model import make_tiny_base
from tiny_person import make_tiny_person

TRAIN, SAMPLE, STUDY = "train", "sample", "study"


@dataclass(frozen=True)
class Materials:
    """What every job reads; nothing of it is written to after it was made."""

    base: Path
    person: Path
    run: Path
    """A complete run, for the jobs that draw."""
    sweep: Path
    """A complete sweep, for the jobs that build a report."""


@dataclass(frozen=True)
class StruckJob:
    """One command, and how its folder looks before it."""

    name: str
    command: str
    """``train``, ``sample`` or ``study``."""
    arguments: Callable[[Materials, Path], list[str]]
    """From the materials and the job's own folder to its command line."""
    prepare: Callable[[Materials, Path], None] = lambda materials, folder: None
    """Puts into the folder what the command finds there."""
    moments: tuple[str, ...] = ()
    """Patterns of files whose first appearance is a moment to strike, beside random times."""
    alone: bool = True
    """Whether all work is done in one process, which can be forked from a loaded one."""
    tolerance: float = 0.0
    """How far what it leaves may differ from what an undisturbed command leaves."""


def _training(materials: Materials) -> list[str]:
    return [
        f"model.checkpoint={materials.base}",
        f"data.dir={materials.person}",
        *("data.resolution=32", "network.dim=4", "epochs=4", "save_every=0.25", "seed=7"),
        *("trainer.threads=1", "callbacks.progress=false", "metrics.enabled=false"),
        f"sampling.checkpoints=['{materials.base}']",
        *("sampling.width=32", "sampling.height=32", "sampling.steps=2", "study.reuse_from=null"),
        *("sampling.prompts.random=[a]", "sampling.random_seeds=[1]"),
    ]


def _sweep(materials: Materials, folder: Path, *more: str) -> list[str]:
    values = ["-m", "network.dim=4", "network.dim=2,4", "epochs=1", "save_every=0.5"]
    values += ["study.seeds=2"]
    changed = {argument.split("=")[0] for argument in values}
    changed |= {argument.split("=")[0] for argument in more}
    kept = [a for a in _training(materials) if a.split("=")[0] not in changed]
    return [*values, *kept, f"hydra.sweep.dir={folder / 'sweep'}", *more]


SCORED = (
    *("metrics.enabled=true", "metrics.seeds=[1,2]", "metrics.plain_seeds=[3]", "metrics.steps=2"),
    "metrics.prompts=[" + ",".join(f"'{{subject}} {n}'" for n in range(5)) + "]",
    "metrics.plain_prompts=[" + ",".join(f"'plain {n}'" for n in range(5)) + "]",
)
"""The images that are scored, few and small."""


def _copied(part: str) -> Callable[[Materials, Path], None]:
    def copy(materials: Materials, folder: Path) -> None:
        shutil.copytree(getattr(materials, part), folder / part)

    return copy


def _sweep_without_report(materials: Materials, folder: Path) -> None:
    _copied("sweep")(materials, folder)
    shutil.rmtree(folder / "sweep" / "report")


def _sweep_without_scores(materials: Materials, folder: Path) -> None:
    _sweep_without_report(materials, folder)
    shutil.rmtree(folder / "sweep" / STORE)
    for path in (folder / "sweep").rglob(SCORES_FILE):
        path.unlink()
        shutil.rmtree(path.parent / "images" / IMAGES)


def _launched(launcher: str, *settings: str) -> StruckJob:
    """A sweep whose runs are trained in other processes."""
    return StruckJob(
        f"a sweep through {launcher}",
        TRAIN,
        lambda m, folder: _sweep(m, folder, *settings),
        moments=("sweep/sweep.json", "sweep/**/lora/*.safetensors"),
        alone=False,
    )


JOBS = (
    StruckJob(
        "training",
        TRAIN,
        lambda m, folder: [*_training(m), f"hydra.run.dir={folder / 'run'}"],
        moments=("run/run.json", "run/lora/.*step00000008*", "run/.last.ckpt*", "run/metrics.csv"),
    ),
    StruckJob(
        "training with accumulation and Prodigy",
        TRAIN,
        lambda m, folder: [
            *_training(m),
            *("optimizer=prodigy", "trainer.accumulate_grad_batches=2"),
            f"hydra.run.dir={folder / 'run'}",
        ],
        moments=("run/lora/.*.tmp", "run/last.ckpt"),
    ),
    StruckJob(
        "writing the latent cache",
        TRAIN,
        lambda m, folder: [
            *_training(m),
            *(f"data.cache_dir={folder / 'cache'}", f"hydra.run.dir={folder / 'run'}"),
        ],
        moments=("cache/*", "cache/**/*.safetensors"),
    ),
    StruckJob(
        "drawing grids",
        SAMPLE,
        lambda m, folder: [
            f"run={folder / 'run'}",
            f"sampling.checkpoints=['{m.base}']",
            *("sampling.width=32", "sampling.height=32", "sampling.steps=2"),
        ],
        prepare=_copied("run"),
        moments=("run/images/**/*.png", "run/grids/*"),
    ),
    StruckJob(
        "building a report",
        STUDY,
        lambda m, folder: [str(folder / "sweep")],
        prepare=_sweep_without_report,
        moments=("sweep/report/*.png", "sweep/report/.index.html*"),
    ),
    StruckJob(
        "a sweep with its grids, scores and report",
        TRAIN,
        lambda m, folder: _sweep(m, folder, *SCORED),
        moments=("sweep/sweep.json", "sweep/**/lora/*.safetensors", "sweep/report"),
    ),
    StruckJob(
        "scoring a sweep",
        STUDY,
        lambda m, folder: [str(folder / "sweep"), "--metrics"],
        prepare=_sweep_without_scores,
        moments=("sweep/**/images/metrics/*.png", "sweep/embeddings/*", f"sweep/**/{SCORES_FILE}"),
    ),
    StruckJob(
        "a sweep in a stack",
        TRAIN,
        lambda m, folder: _sweep(m, folder, "hydra/launcher=stacked"),
        moments=("sweep/**/last.ckpt", "sweep/**/lora/*.safetensors"),
        # Runs that are behind the others go on in smaller passes, whose sums are rounded otherwise.
        tolerance=1e-4,
    ),
    _launched("joblib", "hydra/launcher=joblib"),
    _launched("submitit", "hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=2"),
    _launched("Ray", "hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=2"),
)


def make_materials(folder: Path) -> Materials:
    """Makes what jobs read; the complete run and sweep are added by the caller."""
    base, person = folder / "base", folder / "person"
    if not (base / "model_index.json").exists():
        shutil.rmtree(base, ignore_errors=True)
        make_tiny_base(base)
    if not (person / "held_out").exists():
        shutil.rmtree(person, ignore_errors=True)
        make_tiny_person(person)
    return Materials(base, person, folder / "run", folder / "sweep")
