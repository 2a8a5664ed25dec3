"""Errors that are meant for the person at the terminal."""


class LabError(Exception):
    """A failure told in one line: what (key or file), its value, what is allowed, what to do next.

    Commands print it without a traceback and end with status 1.
    """


class ConfigError(LabError):
    """A wrong argument or setting, found before anything was started; commands end with status 2.

    The message holds one line for each problem.
    """


class Stopped(KeyboardInterrupt):
    """A signal ended a run at a step whose checkpoint is written; a sweep ends with it, too.

    Args:
        number: The signal.
        step: The last step that was taken.
    """

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by signal {number} after step {step}")
        self.number = number
