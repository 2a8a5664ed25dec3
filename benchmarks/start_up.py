"""Seconds from calling the command: to the end of the first step, to the end of ``--help``.

The bare imports are those of the classes that a run uses: the packages alone import them lazily.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.settings import ROOT
from benchmarks.table import BenchmarkRow, alone, paired

IMPORTS = (
    "import torch, lightning.pytorch; from benchmarks.start_up_parts import import_classes; "
    "import_classes()"
)
POLL_SECONDS = 0.01
LIMIT_SECONDS = 300


def run_seconds(arguments: list[str]) -> float:
    """Seconds of a whole Python process, whose output is shown only if it fails.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.stderr.write(process.stdout.decode(errors="replace"))
        process.check_returncode()
    return seconds


def first_step_seconds(overrides: list[str]) -> float:
    """Seconds from starting train.py to the row of the first step in metrics.csv.

    Raises:
        RuntimeError: The run ended, or five minutes passed, without a step.
    """
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder) / "metrics.csv"
        command = [sys.executable, "train.py", f"hydra.run.dir={folder}", *overrides]
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while time.perf_counter() - start < LIMIT_SECONDS and process.poll() is None:
                if metrics.exists() and metrics.read_text(encoding="utf-8").count("\n") >= 2:
                    return time.perf_counter() - start
                time.sleep(POLL_SECONDS)
        finally:
            process.kill()
            process.wait()
    raise RuntimeError(f"no first step: {' '.join(command)}")


def part_seconds(overrides: list[str]) -> dict[str, float]:
    """Part of a run's start -> its seconds, in a process of its own.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    command = [sys.executable, "-m", "benchmarks.start_up_parts", str(time.time()), *overrides]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    return {str(part): float(seconds) for part, seconds in found.items()}


def measure(overrides: list[str], rounds: int) -> list[BenchmarkRow]:
    """Start-up and help, each in turn with the bare imports, and the parts of a start.

    Args:
        overrides: As for train.py.
        rounds: How often each is run; the first run after an installation is slower than the rest.
    """
    imports, first_step, shown, parts = [], [], [], []
    for _ in range(rounds):
        imports.append(run_seconds(["-c", IMPORTS]))
        first_step.append(first_step_seconds(overrides))
        parts.append(part_seconds(overrides))
        shown.append(run_seconds(["train.py", "--help"]))
    return [
        paired("start to first step, against bare imports", first_step, imports, "s"),
        *(alone(f"  {part}", [one[part] for one in parts], "s") for part in parts[0]),
        alone("train.py --help", shown, "s"),
    ]
