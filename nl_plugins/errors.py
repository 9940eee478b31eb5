"""Errors that a user can fix.

The tools print them as one message; everything else keeps its traceback.
"""

import pickle


def first_line(error: BaseException) -> str:
    """What went wrong, short enough for a table.

    Args:
        error (BaseException): Any exception.

    Returns:
        str: The first line of its message that is not empty.
    """
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), repr(error))


class RunError(Exception):
    """A run that cannot start, or cannot go on, for a reason to be fixed."""


class ConfigNotFoundError(RunError, FileNotFoundError):
    """There is no such config."""


class ToolboxNotInstalledError(RunError, ModuleNotFoundError):
    """A config needs a toolbox that cannot be imported."""


class DatasetNotFoundError(RunError, FileNotFoundError):
    """A folder or annotation file of a dataset does not exist."""


class VideoReadError(RunError, OSError):
    """A video of a dataset cannot be read."""


class CheckpointNotFoundError(RunError, FileNotFoundError):
    """There is no such checkpoint."""


class CheckpointReadError(RunError, pickle.UnpicklingError):
    """A checkpoint is damaged, or holds a type that may not be loaded."""


class CheckpointMismatchError(RunError, ValueError):
    """A checkpoint belongs to another model or holds too little."""


class OptionError(RunError, ValueError):
    """An option does not go with the config or the machine."""


class MetafileError(RunError, ValueError):
    """A metafile of the model zoo and the configs beside it disagree."""


class InsertionError(RunError, ValueError):
    """A block cannot be built or inserted as the config says."""


class ArgumentError(RunError, TypeError):
    """A block does not take an argument of its config."""
