"""Feeds mutated input to every reader of foreign text and files: only our own errors may come out.

python -m reliability.fuzz --cases 100000

Hypothesis mutates the seeds of tests/corpora/seeds.json and files that the project's own writers
make: it cuts, doubles, splices and inserts what has broken parsers before, and shrinks what it
finds. Every case has a limit of time, the process one of memory. A reader may raise LabError (with
ConfigError, which is one) and nothing else. What was found became a test beside its reader.
"""

import argparse
import faulthandler
import json
import logging
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import FrameType

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from lora_lab.errors import LabError

SEEDS = Path(__file__).resolve().parents[1] / "tests" / "corpora" / "seeds.json"
SECONDS = 10.0
"""For one case; the slowest reader needs a tenth of it on a busy machine."""
WARM_UP = 20
"""Times as long may the first case take, which loads libraries."""
MEMORY = 3 * 2**30
"""Bytes by which one process may grow."""
LARGEST = 200_000
"""Bytes of a mutated input."""
TOKENS = (
    *(
        b"\0",
        b"\n",
        b"\r\n",
        b"\\",
        b"'",
        b'"',
        b"`",
        b"$",
        b"%s",
        b"{}",
        b"${",
        b"}",
        b"#",
        b"---",
    ),
    *(b"(((", b")))", b"[[[[", b"]]]]", b":", b"::", b"|", b",", b"AND", b"BREAK", b"__x__"),
    *(b"<lora:", b"-1", b"0", b"1e309", b"nan", b"inf", b"9" * 20, b"0x", b"1_000", b"true"),
    *(b"null", b"../../", b"/etc/passwd", b"C:\\", b"<script>", b"=cmd|", b"@", b"\x1b[31m"),
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"${oc.env:HOME}", b"&a *a", b"_target_: x"),
    *("\u202e".encode(), "\u65e5\u672c".encode(), b"!!python/object:os.system", b"[" * 500),
    *(b"{" * 500, b"(" * 500),
)
"""What has broken parsers before."""


@dataclass(frozen=True)
class FuzzReader:
    """One reader."""

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[bytes, Path], None]
    """Reads one input; the folder is empty and of this target alone."""
    weight: float = 1.0
    """Its share of the cases, against the others'."""
    seconds: float = SECONDS
    """That one case may take."""


@dataclass(frozen=True)
class Found:
    """How a target ended."""

    name: str
    cases: int
    refused: int
    """Cases that ended with our own error."""
    seconds: float
    slowest: float
    problem: str
    """What came out that may not, with the input; empty when nothing did."""


class TooSlow(Exception):
    """A case took longer than its limit."""


def mutated(seeds: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Inputs made of the seeds: each with up to eight changes."""
    change = st.tuples(
        st.integers(0, 5),
        st.integers(0, 9999),
        st.integers(0, 64),
        st.integers(0, len(TOKENS) - 1),
        st.integers(0, len(seeds) - 1),
    )
    changes = st.lists(change, max_size=8)
    return st.builds(
        lambda index, made: _change(seeds, index, made), st.integers(0, len(seeds) - 1), changes
    )


def _change(
    seeds: tuple[bytes, ...], index: int, changes: list[tuple[int, int, int, int, int]]
) -> bytes:
    data = seeds[index]
    for kind, place, length, token, other in changes:
        at = place * len(data) // 10_000
        part = data[at : at + length]
        if kind == 0:  # cut
            data = data[:at] + data[at + length :]
        elif kind == 1:  # double, up to 64 times
            data = data[:at] + part * (1 + token) + data[at + length :]
        elif kind == 2:  # insert
            data = data[:at] + TOKENS[token] + data[at:]
        elif kind == 3:  # replace
            data = data[:at] + TOKENS[token] + data[at + length :]
        elif kind == 4:  # one byte
            data = data[:at] + bytes([(length * 4 + token) % 256]) + data[at + 1 :]
        else:  # splice
            data = data[:at] + seeds[other][-(place % (len(seeds[other]) + 1)) :]
        data = data[:LARGEST]
    return data


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TooSlow in a block that takes longer."""

    def expired(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attack(target: FuzzReader, cases: int, number: int) -> Found:
    """Runs the cases of one target.

    Args:
        target: The reader.
        cases: How many.
        number: Decides them.
    """
    refused, slowest, last = 0, 0.0, b""
    ran = 0
    start = time.monotonic()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Its libraries are loaded now: an import that is cut off half-way breaks all later cases.
        with suppress(Exception), limited(WARM_UP * target.seconds):
            target.read(target.seeds[0], folder)

        @seed(number)
        @settings(
            max_examples=cases,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(mutated(target.seeds))
        def each(data: bytes) -> None:
            nonlocal refused, slowest, last, ran
            ran, last, begun = ran + 1, data, time.monotonic()
            try:
                with (
                    limited(target.seconds),
                    redirect_stdout(StringIO()),
                    redirect_stderr(StringIO()),
                ):
                    target.read(data, folder)
            except LabError:
                refused += 1
            slowest = max(slowest, time.monotonic() - begun)

        problem = ""
        try:
            each()
        except Exception as error:
            problem = f"{type(error).__name__}: {str(error)[:200]} for {last[:300]!r}"
    return Found(target.name, ran, refused, time.monotonic() - start, slowest, problem)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns 0 when only our own errors came out."""
    from reliability.targets import targets

    parser = argparse.ArgumentParser(prog="python -m reliability.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000, help="in all (100000)")
    parser.add_argument("--seed", type=int, default=7, help="decides every case (7)")
    parser.add_argument("--targets", default="", help="only those whose name contains this")
    options = parser.parse_args(arguments)
    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    known = {name: tuple(text.encode() for text in texts) for name, texts in _seeds().items()}
    with tempfile.TemporaryDirectory() as folder:
        chosen = [t for t in targets(known, Path(folder)) if options.targets in t.name]
        if not chosen or options.cases < 1:
            parser.error("--cases must be at least 1 and --targets must match a target")
        _limit_memory()
        whole = sum(target.weight for target in chosen)
        found = []
        for target in chosen:
            share = max(1, round(options.cases * target.weight / whole))
            found.append(attack(target, share, options.seed))
            print(_row(found[-1]), flush=True)
    print(render(found))
    return 1 if any(one.problem for one in found) else 0


def _seeds() -> dict[str, list[str]]:
    seeds: dict[str, list[str]] = json.loads(SEEDS.read_text(encoding="utf-8"))
    return seeds


def _limit_memory() -> None:
    """Lets this process grow by so much and no more, so that a hungry reader fails here."""
    import psutil

    limit = psutil.Process().memory_info().vms + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _row(one: Found) -> str:
    told = f"FOUND {one.problem}" if one.problem else "nothing else came out"
    return (
        f"| {one.name} | {one.cases} | {one.refused} | {one.seconds:.0f} s | {one.slowest:.2f} s "
        f"| {told} |"
    )


def render(found: list[Found]) -> str:
    """The table of docs/reliability.md."""
    head = "\n| reader | cases | refused in one line | time | slowest | result |"
    rows = ["| --- | ---: | ---: | ---: | ---: | --- |", *(_row(one) for one in found)]
    total = sum(one.cases for one in found)
    bad = sum(bool(one.problem) for one in found)
    return "\n".join([head, *rows, f"\n{total} cases, {bad} readers with a finding."])


if __name__ == "__main__":
    sys.exit(main())
