"""How a command ends: one line for what went wrong, and the exit status that shells know."""

import argparse
import io
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from lora_lab.errors import LabError, Stopped, one_line

INTERRUPTED = 130
"""Exit status after Ctrl-C, as in every shell: 128 + SIGINT."""
DEBUG = "--debug"
"""Option of the commands without a config; the others have ``debug=true``."""


@dataclass
class Heard:
    """Which signal asked the command to end; None: none did.

    A library may turn the exception of a signal into one of its own. Whatever comes out after a
    signal was heard is therefore told as that signal.
    """

    number: int | None = None

    def again(self) -> None:
        """Raise anew what the signal raised, if one was heard.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            Stopped: SIGTERM.
        """
        if self.number is not None:
            raise KeyboardInterrupt if self.number == signal.SIGINT else Stopped(self.number, 0)


HEARD = Heard()
"""Of this process; a command begins with none."""


def print_any_name() -> None:
    """Let stdout take every path, also one whose bytes are no text."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have Ctrl-C raise KeyboardInterrupt and SIGTERM Stopped, and note that they came.

    Where Ctrl-C is ignored, as in the background of a script, it stays so.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        HEARD.number = number
        HEARD.again()

    HEARD.number = None
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        numbers.append(signal.SIGINT)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def end_by_signal(stop: BaseException) -> int:
    """Tell how to go on after a signal and return the exit status.

    Args:
        stop: What came out of the command.
    """
    if isinstance(stop, Stopped) and stop.step:
        tell([f"{stop}; the same command with the same folder resumes it"])
        return 128 + stop.number
    number = stop.number if isinstance(stop, Stopped) else HEARD.number or signal.SIGINT
    reason = "interrupted" if number == signal.SIGINT else str(Stopped(number, 0))
    tell([f"{reason}; the same command resumes at the last checkpoint, or starts again"])
    return 128 + number


def tell(lines: Iterable[str]) -> None:
    """Write each problem as one line on stderr, after all that stands on stdout."""
    sys.stdout.flush()
    for line in lines:
        sys.stderr.write(f"error: {one_line(line)}\n")
    sys.stderr.flush()


def tell_report(sentence: str, page: Path) -> None:
    """Write what a report says first as one line on stdout, then the path of its page.

    Args:
        sentence: May hold text from a run folder; what the terminal can't show is escaped.
        page: The last line, as it is.
    """
    encoding = sys.stdout.encoding or "utf-8"
    line = one_line(sentence).encode(encoding, "backslashreplace").decode(encoding)
    sys.stdout.write(f"{line}\n{page}\n")
    sys.stdout.flush()


def unforeseen(error: Exception, debug: bool, option: str) -> str:
    """The line for an error that nobody foresaw.

    Args:
        error: What came out.
        debug: Whether its traceback was asked for.
        option: What asks for it.
    """
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return reason if debug else f"{reason}; {option} shows where"


class OneLineParser(argparse.ArgumentParser):
    """Python's parser, which answers a wrong argument with one line in place of its usage."""

    def error(self, message: str) -> NoReturn:
        """End the command with status 2."""
        tell([f"{message}; {self.prog} --help shows what is allowed"])
        raise SystemExit(2)


def path_of(text: str) -> Path:
    """A path of the command line, which need not exist.

    Raises:
        argparse.ArgumentTypeError: No file can have this name, or it may not be looked at.
    """
    path = Path(text)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise argparse.ArgumentTypeError(f"{text} can't be opened ({reason})") from error
    return path


def run_plain(main: Callable[[], int]) -> int:
    """Run a command that Hydra doesn't start, and return its exit status.

    Args:
        main: Reads the command line and does the work; tells what it foresees by itself.

    Returns:
        What ``main`` returned, 1 for an error that nobody foresaw, 130 (Ctrl-C) or 143 (SIGTERM).
    """
    debug = DEBUG in sys.argv[1:]
    print_any_name()
    with ended_by_signals():
        try:
            return main()
        except KeyboardInterrupt as stop:
            return end_by_signal(stop)
        except Exception as error:
            if debug:
                traceback.print_exc()
            if HEARD.number is not None:
                return end_by_signal(error)
            tell([str(error) if isinstance(error, LabError) else unforeseen(error, debug, DEBUG)])
            return 1
