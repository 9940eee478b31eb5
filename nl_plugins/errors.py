"""Errors that a user can fix.

The tools print only their message; other errors keep their traceback.
"""

import pickle
from collections.abc import Iterable
from difflib import get_close_matches


def first_line(error: BaseException) -> str:
    """The first line of an error's message that is not empty.

    Args:
        error (BaseException): Any exception.

    Returns:
        str: The line, or ``repr(error)`` without a message.
    """
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), repr(error))


def did_you_mean(known: Iterable[str], *names: str) -> str:
    """The end of a message about unknown names: a known one like one of them.

    Args:
        known (Iterable[str]): What there is.
        *names (str): What a user wrote.

    Returns:
        str: ``"; did you mean 'x'?"``, or ``''`` if none is similar.
    """
    known = list(known)
    close = [match for name in names for match in get_close_matches(name, known, n=1)]
    return f'; did you mean {close[0]!r}?' if close else ''


class RunError(Exception):
    """A run cannot start or continue until the user changes something."""


class ConfigNotFoundError(RunError, FileNotFoundError):
    """A config does not exist."""


class ConfigError(RunError, ValueError):
    """A config cannot be loaded, or names something that does not exist."""


class ToolboxNotInstalledError(RunError, ModuleNotFoundError):
    """A config needs a toolbox that cannot be imported."""


class DatasetNotFoundError(RunError, FileNotFoundError):
    """A folder or annotation file of a dataset does not exist."""


class VideoReadError(RunError, OSError):
    """A video of a dataset cannot be read."""


class CheckpointNotFoundError(RunError, FileNotFoundError):
    """A checkpoint does not exist."""


class CheckpointReadError(RunError, pickle.UnpicklingError):
    """A checkpoint is damaged, or holds a type that is not allowed."""


class CheckpointMismatchError(RunError, ValueError):
    """A checkpoint is that of another model, or lacks required keys."""


class OptionError(RunError, ValueError):
    """The config or the machine does not support an option."""


class MetafileError(RunError, ValueError):
    """A metafile of the model zoo disagrees with the configs in its folder."""


class InsertionError(RunError, ValueError):
    """A block cannot be built or inserted as configured."""


class ArgumentError(RunError, TypeError):
    """A block does not take an argument of its config."""
