"""Commands of the project in process groups of their own, which can be killed whole.

Loading the libraries takes longer than a tiny job. Jobs that work in one process are therefore
forked from this one, in which the libraries are loaded and no thread has been started.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {
    "train": [str(ROOT / "train.py")],
    "sample": [str(ROOT / "sample.py")],
    "study": ["-m", "lora_lab.study"],
}
POLL = 0.002
"""Seconds between two looks for a file."""


def load_libraries() -> None:
    """Imports what the jobs need, so that a forked one need not."""
    import lora_lab.data.data_module
    import lora_lab.metrics.image_scores
    import lora_lab.network
    import lora_lab.sampling.grids.draw_grids
    import lora_lab.study.report.build
    import lora_lab.training.callbacks.build
    import lora_lab.training.trainer  # noqa: F401


def _main(command: str, arguments: list[str]) -> int:
    """Runs a command in this process, as its script does."""
    if command == "study":
        from lora_lab.cli.ending import run_plain
        from lora_lab.study.__main__ import main

        return run_plain(lambda: main(arguments))
    import runpy

    script = SCRIPTS[command][0]
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


class Running:
    """A started command.

    Args:
        command: ``train``, ``sample`` or ``study``.
        arguments: Its command line.
        log: Where its output goes, appended.
        forked: Fork it from this process instead of starting Python anew.
    """

    def __init__(self, command: str, arguments: list[str], log: Path, forked: bool) -> None:
        # A background job of a script ignores Ctrl-C, and what it starts would do so, too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.started = time.monotonic()
        self.status: int | None = None
        if not forked:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    [sys.executable, *SCRIPTS[command], *arguments],
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            self.pid = self._process.pid
            return
        self.pid = os.fork()
        if self.pid == 0:
            self._become(command, arguments, log)

    def _become(self, command: str, arguments: list[str], log: Path) -> None:
        status = 70
        try:
            os.setsid()
            os.chdir(ROOT)
            output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.dup2(output, 1)
            os.dup2(output, 2)
            status = _main(command, arguments)
        except KeyboardInterrupt:
            status = 130
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self.status is None:
            pid, state = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(state)
        return self.status

    def wait_until(self, due: Callable[[float], bool], limit: float) -> bool:
        """Whether a moment came while the command ran.

        Args:
            due: From seconds since the start to whether the moment is there.
            limit: Seconds after which it no longer counts as running.

        Raises:
            TimeoutError: It runs for longer than ``limit``.
        """
        while self.poll() is None:
            seconds = time.monotonic() - self.started
            if due(seconds):
                return True
            if seconds > limit:
                self.strike(signal.SIGKILL)
                raise TimeoutError(f"still running after {limit:.0f} s")
            time.sleep(POLL)
        return False

    def strike(self, number: int) -> None:
        """Sends a signal: SIGKILL to the whole group, others to the command, as a shell does."""
        try:
            if number == signal.SIGKILL:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def finish(self, limit: float) -> int:
        """Waits for the end and returns the exit status; what is left of the group is killed.

        Raises:
            TimeoutError: It runs for longer than ``limit`` seconds.
        """
        self.wait_until(lambda seconds: False, limit)
        self.strike(signal.SIGKILL)
        assert self.status is not None
        return self.status
