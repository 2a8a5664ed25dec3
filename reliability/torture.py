"""Kills commands at random moments and holds what they leave against undisturbed ones.

python -m reliability.torture --kills 50 --seed 7

Each case starts a command, strikes it with SIGKILL (its whole process group), SIGTERM or Ctrl-C at
a random moment or when a certain file appears, gives the same command again, and compares: every
tensor, every figure but seconds, every image; a stack within the tolerance that it promises
(docs/stacking.md). A case is decided by the seed and its number alone; results are kept in the work
folder, so an interrupted torture goes on. The method is that of SQLite's crash tests and of Jepsen.
"""

import argparse
import json
import logging
import random
import re
import shutil
import signal
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from operator import le
from pathlib import Path

import torch

from reliability.compare import differences
from reliability.jobs import JOBS, Materials, StruckJob, make_materials
from reliability.process import Running, load_libraries

LIMIT = 900.0
"""Seconds after which a command hangs."""
SIGNALS = {"SIGKILL": 6, "SIGTERM": 2, "SIGINT": 2}
"""Signal -> how often it is sent, as a weight."""
ATTEMPTS = 4
"""Moments that are tried before a command that always ends sooner counts as undisturbed."""
STATUS_OF = {
    "SIGTERM": (143, -signal.SIGTERM, 0),
    "SIGINT": (130, -signal.SIGINT, 0),
    "SIGKILL": (-9,),
}
"""Exit statuses that a signal may leave: negative while Python starts, 0 at the very end."""


@dataclass(frozen=True)
class Case:
    """One strike."""

    number: int
    job: str
    signal: str
    moment: str
    struck: bool
    """Whether the command still ran at that moment."""
    status: int
    """Exit status of the struck command."""
    problems: tuple[str, ...]
    seconds: float


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns 0 when every case ends as an undisturbed command does."""
    parser = argparse.ArgumentParser(prog="python -m reliability.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="how many cases (50)")
    parser.add_argument("--seed", type=int, default=7, help="decides every case (7)")
    parser.add_argument("--work", type=Path, default=Path("build/torture"), help="work folder")
    parser.add_argument("--jobs", default="", help="only jobs whose name contains this")
    options = parser.parse_args(arguments)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    jobs = [job for job in JOBS if options.jobs in job.name]
    if options.kills < 1 or not jobs:
        parser.error("--kills must be at least 1 and --jobs must match a job")
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    load_libraries()
    materials = _materials(work)
    cases = _torture(jobs, materials, work, options.kills, options.seed)
    print(render(cases))
    failed = [case for case in cases if case.problems]
    for case in failed:
        print(f"\ncase {case.number}, {case.job}, {case.signal} at {case.moment}:")
        print("\n".join(f"  {problem}" for problem in case.problems[:8]))
    return 1 if failed else 0


def _torture(
    jobs: list[StruckJob], materials: Materials, work: Path, kills: int, seed: int
) -> list[Case]:
    record = work / f"cases-{seed}.jsonl"
    done = {}
    if record.exists():
        for line in record.read_text(encoding="utf-8").splitlines():
            fields = json.loads(line)
            done[fields["number"]] = Case(**{**fields, "problems": tuple(fields["problems"])})
    cases = []
    for number in range(1, kills + 1):
        case = done.get(number)
        if case is None:
            job = jobs[(number - 1) % len(jobs)]
            case = strike(job, materials, work, number, seed)
            with record.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(case)) + "\n")
            mark = "ok" if not case.problems else f"FAILED: {case.problems[0]}"
            print(f"{number:3} {case.job}, {case.signal} at {case.moment}: {mark}", flush=True)
        cases.append(case)
    return cases


def strike(job: StruckJob, materials: Materials, work: Path, number: int, seed: int) -> Case:
    """Disturbs one command, gives it again, and compares with the undisturbed one."""
    start = time.monotonic()
    rng = random.Random(f"torture/{seed}/{number}")
    whole, seconds = _undisturbed(job, materials, work)
    name = rng.choices(list(SIGNALS), list(SIGNALS.values()))[0]
    folder = work / f"case-{number}"
    problems: list[str] = []
    struck, status, moment = False, 0, ""
    for _ in range(ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        job.prepare(materials, folder)
        command = job.arguments(materials, folder)
        log = work / f"case-{number}.log"
        log.unlink(missing_ok=True)
        running = Running(job.command, command, log, job.alone)
        by_file = bool(job.moments) and rng.random() < 0.5
        pattern, at = rng.choice(job.moments or ("",)), rng.uniform(0.02, 0.95) * seconds
        before = _files(folder, pattern) if by_file else set()
        moment = pattern if by_file else f"{at:.1f} s"

        struck = running.wait_until(
            partial(_appeared, folder, pattern, before) if by_file else partial(le, at), LIMIT
        )
        if struck:
            running.strike(getattr(signal, name))
        status = running.finish(LIMIT)
        struck = struck and not (name == "SIGKILL" and status == 0)  # it had just ended by itself
        if struck:
            break
    if struck and status not in STATUS_OF[name]:
        problems.append(f"exit status {status} after {name}")
    again = Running(job.command, job.arguments(materials, folder), log, job.alone).finish(LIMIT)
    if again != 0:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
        problems.append(f"the same command again ends with {again}: {' | '.join(tail)}")
    problems += differences(whole, folder, job.tolerance)
    if not problems:
        shutil.rmtree(folder)
    taken = round(time.monotonic() - start, 1)
    return Case(number, job.name, name, moment, struck, status, tuple(problems), taken)


def _appeared(folder: Path, pattern: str, before: set[str], passed: float) -> bool:
    return bool(_files(folder, pattern) - before)


def _files(folder: Path, pattern: str) -> set[str]:
    """What matches a pattern now; a folder that vanishes meanwhile holds nothing."""
    try:
        return {str(path) for path in folder.glob(pattern)}
    except OSError:
        return set()


def _undisturbed(job: StruckJob, materials: Materials, work: Path) -> tuple[Path, float]:
    """The folder that a job leaves when nothing disturbs it, and the seconds that it takes.

    Raises:
        RuntimeError: The job fails by itself.
    """
    folder = work / "whole" / re.sub(r"\W+", "-", job.name)
    note = folder.with_suffix(".json")
    if note.exists():
        return folder, float(json.loads(note.read_text(encoding="utf-8"))["seconds"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    job.prepare(materials, folder)
    start, log = time.monotonic(), folder.with_suffix(".log")
    log.unlink(missing_ok=True)
    status = Running(job.command, job.arguments(materials, folder), log, job.alone).finish(LIMIT)
    if status != 0:
        raise RuntimeError(f"{job.name} ends with {status} undisturbed; {log} says why")
    seconds = time.monotonic() - start
    note.write_text(json.dumps({"seconds": seconds}), encoding="utf-8")
    return folder, seconds


def _materials(work: Path) -> Materials:
    """The tiny model and person, and a complete run and sweep of them."""
    materials = make_materials(work / "materials")
    by_name = {job.name: job for job in JOBS}
    for part, name in (
        ("run", "training"),
        ("sweep", "a sweep with its grids, scores and report"),
    ):
        whole, _ = _undisturbed(by_name[name], materials, work)
        if not getattr(materials, part).exists():
            shutil.copytree(whole / part, getattr(materials, part))
    return materials


def render(cases: list[Case]) -> str:
    """The table of docs/reliability.md: job -> strikes by signal, and how many came out equal."""
    lines = ["| what was struck | SIGKILL | SIGTERM | Ctrl-C | equal afterwards |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for name in dict.fromkeys(case.job for case in cases):
        mine = [case for case in cases if case.job == name]
        counts = [
            sum(case.signal == kind and case.struck for case in mine)
            for kind in ("SIGKILL", "SIGTERM", "SIGINT")
        ]
        equal = sum(not case.problems for case in mine)
        lines.append(f"| {name} | {' | '.join(map(str, counts))} | {equal} of {len(mine)} |")
    equal, late = sum(not c.problems for c in cases), sum(not c.struck for c in cases)
    lines.append(f"\n{equal} of {len(cases)} equal an undisturbed command.")
    if late:
        lines.append(f"{late} had ended before each of {ATTEMPTS} moments and were compared as is.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
