"""Whether this checkout trains the same bytes as another revision of the project.

    python -m benchmarks.same_bytes <revision>

Three short runs of the embedded model are trained from both checkouts, on this machine and with
one thread: the base; a LoCon with accumulated gradients and regularisation images; a run of Prodigy
that is interrupted by SIGTERM and resumed. Every tensor of every LoRA file and every figure of
metrics.csv and held_out.csv must be the same. Digests of one machine would mean nothing on another,
so both sides are trained each time; about two minutes on two cores.
"""

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[1]
SHORT = ("trainer.threads=1", "callbacks.progress=false", "save_every=0.25")
RUNS = {
    "base": ("epochs=3",),
    "locon": (
        *("network=lora_conv", "network.dim=4", "network.conv_dim=2", "epochs=3"),
        *("trainer.accumulate_grad_batches=2", "data.reg_dir={person}/held_out"),
        *("data.flip=true", "data.latents=sample", "network.dropout=0.1"),
    ),
    "prodigy": ("optimizer=prodigy", "epochs=12", "save_every=0.05"),
}
INTERRUPTED = ("prodigy",)
SECONDS_TO_WAIT = 300.0


def train(checkout: Path, name: str, folder: Path) -> None:
    """Train one of the runs in a process of its own.

    Args:
        checkout: Whose train.py and sources are run.
        name: Of the run.
        folder: The run folder.

    Raises:
        RuntimeError: The run failed; its last lines are told.
    """
    person = checkout / "src/lora_lab/pocket/person"
    overrides = [text.format(person=person) for text in (*SHORT, *RUNS[name])]
    command = [sys.executable, "train.py", *overrides, f"hydra.run.dir={folder}"]
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    if name in INTERRUPTED:
        interrupt(command, checkout, environment, folder / "last.ckpt")
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{checkout}: {name} failed: {done.stderr[-2000:]}")


def interrupt(command: list[str], checkout: Path, environment: dict[str, str], file: Path) -> None:
    """Run a command and send it SIGTERM as soon as a file is there.

    Raises:
        RuntimeError: It ended before, or the file never came.
    """
    with subprocess.Popen(
        command, cwd=checkout, env=environment, stderr=subprocess.PIPE
    ) as process:
        start = time.monotonic()
        while not file.exists():
            if process.poll() is not None or time.monotonic() - start > SECONDS_TO_WAIT:
                process.kill()
                raise RuntimeError(f"{command} was not interrupted: {process.communicate()[1]!r}")
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    if process.returncode != 128 + signal.SIGTERM:
        raise RuntimeError(f"{command} ended with {process.returncode}, not by SIGTERM")


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two run folders, in a line each: tensors, and figures but seconds."""
    found: list[str] = []
    names = [sorted(path.name for path in folder.glob("lora/*")) for folder in (one, other)]
    if names[0] != names[1] or not names[0]:
        return [f"{one.name}: the LoRA files are {names[0]} and {names[1]}"]
    for name in names[0]:
        tensors = [load_file(folder / "lora" / name) for folder in (one, other)]
        if list(tensors[0]) != list(tensors[1]):
            found.append(f"{one.name}: {name} has other tensors")
            continue
        changed = [k for k, v in tensors[0].items() if v.tobytes() != tensors[1][k].tobytes()]
        if changed:
            found.append(f"{one.name}: {name}: {len(changed)} tensors differ, first {changed[0]}")
    for name in ("metrics.csv", "held_out.csv"):
        if figures(one / name) != figures(other / name):
            found.append(f"{one.name}: {name} differs")
    return found


def figures(path: Path) -> list[list[str]]:
    """Header and rows of a table, without the seconds."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    seconds = rows[0].index("seconds") if "seconds" in rows[0] else None
    return [[text for place, text in enumerate(row) if place != seconds] for row in rows]


def compare(revision: str) -> list[str]:
    """What this checkout trains otherwise than a revision of the project."""
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkout = folder / "checkout"
        subprocess.run([*git, "add", "--quiet", "--detach", str(checkout), revision], check=True)
        try:
            found: list[str] = []
            for run in RUNS:
                for side, root in (("then", checkout), ("now", ROOT)):
                    train(root, run, folder / side / run)
                found += differences(folder / "then" / run, folder / "now" / run)
            return found
        finally:
            subprocess.run([*git, "remove", "--force", str(checkout)], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("revision", help="such as HEAD~1 or a commit")
    lines = compare(parser.parse_args().revision)
    sys.stdout.write("\n".join(lines or [f"{', '.join(RUNS)}: the same bytes"]) + "\n")
    sys.exit(1 if lines else 0)
