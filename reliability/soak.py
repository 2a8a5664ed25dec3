"""Runs for long and looks for what grows: memory, open files, logs.

python -m reliability.soak steps --count 20000     one training of so many steps
python -m reliability.soak runs --count 200        a sweep of so many runs
python -m reliability.soak report --count 1000     a report of so many runs

Memory and open files are read from the system while the command runs; the slope over the second
half of the run is what it grows by, so that what is loaded once doesn't count.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from reliability.jobs import Materials, make_materials
from reliability.process import Running

LIMIT = 6 * 3600.0
"""Seconds after which a command hangs."""
EVERY = 1.0
"""Seconds between two readings."""


def measured(running: Running, log: Path) -> np.ndarray:
    """Seconds, bytes of memory, open files and bytes of log while a command runs, (R, 4)."""
    rows = []
    process = psutil.Process(running.pid)
    while running.poll() is None:
        try:
            memory, files = process.memory_info().rss, process.num_fds()
        except psutil.Error:
            break
        size = log.stat().st_size if log.exists() else 0
        rows.append((time.monotonic() - running.started, memory, files, size))
        time.sleep(EVERY)
    running.finish(LIMIT)
    return np.array(rows, dtype=float).reshape(-1, 4)


def growth(rows: np.ndarray) -> np.ndarray:
    """By how much memory, open files and log grew over the second half, by a straight line, (3,).

    Args:
        rows: Readings, (R, 4), at least 8.
    """
    late = rows[len(rows) // 2 :]
    span = late[-1, 0] - late[0, 0]
    return np.array([np.polyfit(late[:, 0], late[:, column], 1)[0] * span for column in (1, 2, 3)])


def _arguments(kind: str, count: int, materials: Materials, folder: Path) -> tuple[str, list[str]]:
    common = [
        f"model.checkpoint={materials.base}",
        f"data.dir={materials.person}",
        *("data.resolution=32", "network.dim=4", "seed=7", "trainer.threads=1"),
        *("callbacks.progress=false", "metrics.enabled=false", "study.reuse_from=null"),
        f"sampling.checkpoints=['{materials.base}']",
        *("sampling.width=32", "sampling.height=32", "sampling.steps=1"),
    ]
    if kind == "steps":
        epochs = max(1, count // 4)  # the tiny person makes 4 steps an epoch
        return "train", [*common, f"epochs={epochs}", f"hydra.run.dir={folder / 'run'}"]
    rates = ",".join(f"{1 + 0.001 * index:g}" for index in range(1, count))  # and the base
    sweep = [f"optimizer.growth_rate={rates}", "study.seeds=1", "epochs=1", "save_every=1.0"]
    return "train", ["-m", *common, *sweep, f"hydra.sweep.dir={folder / 'sweep'}"]


def soak(kind: str, count: int, work: Path) -> str:
    """Runs one of the soaks and returns its row of docs/reliability.md."""
    folder = work / kind
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = folder / "log"
    if kind == "report":
        command, arguments = "study", [str(_many_runs(folder, count))]
    else:
        command, arguments = _arguments(kind, count, make_materials(work / "materials"), folder)
    running = Running(command, arguments, log, forked=False)
    rows = measured(running, log)
    seconds = time.monotonic() - running.started
    peak = rows[:, 1].max() / 2**20 if len(rows) else float("nan")
    grown = growth(rows) if len(rows) >= 8 else np.zeros(3)
    return (
        f"| {count} {kind} | {running.status} | {seconds:.0f} s | {peak:.0f} MB "
        f"| {grown[0] / 2**20:+.1f} MB | {grown[1]:+.1f} | {grown[2] / 1024:+.0f} kB |"
    )


def _many_runs(folder: Path, count: int) -> Path:
    """A sweep folder of so many made-up runs."""
    from study_sweep_builder import SweepBuilder

    sweep = SweepBuilder(folder / "sweep").base(3)
    for index in range(count - 3):
        sweep.value(str(17 + index), effect=0.0001 * (index % 7))
    return sweep.write()


def main() -> int:
    """Runs the command; returns 0 when every command ended well."""
    parser = argparse.ArgumentParser(prog="python -m reliability.soak", description=__doc__)
    parser.add_argument("kinds", nargs="*", help="steps, runs, report (all)")
    parser.add_argument("--count", type=int, help="how many (20000 steps, 200 runs, 1000 runs)")
    parser.add_argument("--work", type=Path, default=Path("build/soak"), help="work folder")
    options = parser.parse_args()
    counts = {"steps": 20_000, "runs": 200, "report": 1000}
    unknown = sorted(set(options.kinds) - set(counts))
    if unknown:
        parser.error(f"unknown kind {unknown[0]}; there are {', '.join(counts)}")
    print("| what | exit status | time | peak memory | memory grew | open files | log |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    well = True
    for kind in options.kinds or counts:
        row = soak(kind, options.count or counts[kind], options.work.resolve())
        print(row, flush=True)
        well = well and row.split("|")[2].strip() == "0"
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
