"""Errors that are meant for the person at the terminal."""


class LabError(Exception):
    """A failure told in one line: what (key or file), its value, what is allowed, what to do next.

    Commands print it without a traceback and end with status 1.
    """


class ConfigError(LabError):
    """A wrong argument or setting, found before anything was started; commands end with status 2.

    The message holds one line for each problem.
    """
