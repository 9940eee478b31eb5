"""Load checkpoints, or report in one message why they cannot be loaded."""

import functools
import logging
import os
import re
import traceback
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader, Runner, find_latest_checkpoint
from torch import nn

from ..errors import (
    CheckpointMismatchError,
    CheckpointNotFoundError,
    CheckpointReadError,
    first_line,
)
from ..insertion import blocks_of


@functools.cache
def report_refusals() -> None:
    """Patch mmengine's loader to report what ``torch.load`` refused.

    Importing ``nl_plugins`` calls it. A second call does nothing.
    """
    CheckpointLoader.load_checkpoint = classmethod(
        _report_refusal(CheckpointLoader.load_checkpoint.__func__)
    )


def _report_refusal(load: Callable) -> Callable:
    """Wrap ``CheckpointLoader.load_checkpoint``."""

    @functools.wraps(load)
    def load_checkpoint(cls: type, filename: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return load(cls, filename, *args, **kwargs)
        except CheckpointNotFoundError:
            raise
        except FileNotFoundError as error:
            raise CheckpointNotFoundError(
                f"there is no checkpoint '{filename}'"
            ) from error
        except Exception as error:  # a damaged file may raise anything
            refused = re.search(r'GLOBAL ([\w.]+)', str(error))
            if refused is None:
                if not _is_file_error(error):
                    raise
                reason = re.search(r'WeightsUnpickler error:\s+(.*)', str(error))
                raise CheckpointReadError(
                    f'{filename} cannot be read as a checkpoint: it is '
                    'damaged, or not written by torch.save '
                    f'({reason[1] if reason else first_line(error)})'
                ) from error
            name = refused[1]
        # Raised outside of the handler, or PyTorch's long message would come
        # first.
        raise CheckpointReadError(
            f"{filename} is refused: it holds '{name}', and only tensors, "
            'plain Python values, NumPy arrays and the types of '
            "mmengine's own checkpoints are loaded, because any other type "
            'may run code. If you trust its maker, keep its weights alone: '
            f"ckpt = torch.load('{filename}', weights_only=False); "
            "torch.save(dict(state_dict=ckpt['state_dict']), 'weights.pth')"
        )

    return load_checkpoint


def _is_file_error(error: Exception) -> bool:
    """Whether the content of a file caused an error.

    Other causes are a missing file, or a device without enough memory.
    """
    if isinstance(error, RuntimeError):
        return 'PytorchStreamReader' in str(error)
    return not isinstance(error, OSError) and any(
        frame.f_globals.get('__name__') == 'torch.serialization'
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


class CheckpointFitHook(Hook):
    """Refuses a checkpoint of another model.

    mmengine loads the parameters that match and only warns about the others,
    so a test would report results of parameters that were never loaded. About
    parts that the model does not have at all (``ema_`` copies in old
    checkpoints, an auxiliary head) mmengine's warning remains.
    """

    # Runs after the hooks that change the checkpoint, such as EMAHook.
    priority = 'LOWEST'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        name = runner._load_from or find_latest_checkpoint(runner.work_dir)
        _check_holds_parameters(checkpoint, name)
        if runner._resume:
            needed = ['meta', 'message_hub', 'optimizer']
            if runner.param_schedulers is not None:
                needed.append('param_schedulers')
            absent = [key for key in needed if key not in checkpoint]
            if absent:
                raise CheckpointMismatchError(
                    f'{name} cannot be resumed: it has no '
                    f'{", ".join(absent)}. To start from its weights instead: '
                    f'--cfg-options load_from={name}'
                )
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        load_parameters(model, checkpoint, name, runner.cfg.filename)


class LoadFromHook(Hook):
    """Warns about parts of a model that ``load_from`` does not hold.

    Parameters of blocks may be missing: the file is that of the model without
    them. A file of which nothing fits is refused.
    """

    priority = 'LOWEST'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        name = runner._load_from
        _check_holds_parameters(checkpoint, name)
        model = runner.model
        while is_model_wrapper(model):
            model = model.module
        blocks = tuple(f'{block}.' for block in blocks_of(model))
        problems, loaded = _load_and_compare(model, checkpoint, optional=blocks)
        if not loaded:
            raise CheckpointMismatchError(
                f'load_from={name} holds no parameter of the model of '
                f'{runner.cfg.filename}:\n' + _lines(problems)
            )
        if problems:
            print_log(
                f'load_from={name} does not fit the model of {runner.cfg.filename} '
                f'as a whole; {loaded} of its parameters were loaded:\n'
                + _lines(problems),
                logger='current',
                level=logging.WARNING,
            )


def load_parameters(model: nn.Module, checkpoint: dict, name: str, config: str) -> None:
    """Load the parameters of a checkpoint into the model that it belongs to.

    Args:
        model (nn.Module): The model, not wrapped.
        checkpoint (dict): Content of the file, a state dict or a dict with
            the key ``'state_dict'``.
        name (str): Name of the checkpoint in messages.
        config (str): Name of the config in messages.

    Raises:
        CheckpointMismatchError: If parameters are missing, unknown or of
            another shape.
    """
    _check_holds_parameters(checkpoint, name)
    problems, _ = _load_and_compare(model, checkpoint)
    if problems:
        raise CheckpointMismatchError(
            f'{name} does not fit the model of {config}:\n' + _lines(problems)
        )


def _lines(problems: list[str]) -> str:
    return '\n'.join(f'  {problem}' for problem in problems)


def _check_holds_parameters(checkpoint: object, name: str) -> None:
    if not isinstance(checkpoint, dict):
        raise CheckpointMismatchError(
            f'{name} holds no parameters, but a {type(checkpoint).__name__}'
        )


def _load_and_compare(
    model: nn.Module, checkpoint: dict, optional: tuple[str, ...] = ()
) -> tuple[list[str], int]:
    """Load a checkpoint, list how it differs, and count what it holds.

    The keys are compared after loading, since modules may convert old keys.
    Those that begin with ``optional`` may be missing.
    """
    loaded = checkpoint.get('state_dict', checkpoint)
    state: Any = OrderedDict(
        (re.sub(r'^module\.', '', key), v) for key, v in loaded.items()
    )
    state._metadata = getattr(loaded, '_metadata', OrderedDict())
    mismatched = []
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError:
        own = model.state_dict()
        missing = [key for key in own if key not in state]
        unexpected = [key for key in state if key not in own]
        mismatched = [
            f'{key} {list(state[key].shape)} instead of {list(own[key].shape)}'
            for key in own
            if key in state and state[key].shape != own[key].shape
        ]
        if not mismatched:
            raise
    parts = {name for name, _ in model.named_children()}
    # PyTorch adds the counters of batch norms to old checkpoints.
    missing = [key for key in missing if 'num_batches_tracked' not in key]
    own_keys = [key for key in model.state_dict() if 'num_batches_tracked' not in key]
    loaded_keys = len(own_keys) - len(missing) - len(mismatched)
    missing = [key for key in missing if not key.startswith(optional)]
    unexpected = [key for key in unexpected if key.split('.')[0] in parts]
    problems = [
        f'{what} ({len(keys)}): '
        + ', '.join(keys[:3])
        + (', ...' if len(keys) > 3 else '')
        for what, keys in (
            ('missing in the checkpoint', missing),
            ('unknown to the model', unexpected),
            ('of another shape', mismatched),
        )
        if keys
    ]
    return problems, loaded_keys


def check_checkpoint_exists(checkpoint: str) -> None:
    """Check that a file exists, unless its name is a URL or ``scheme://``."""
    if '://' not in checkpoint and not os.path.isfile(checkpoint):
        raise CheckpointNotFoundError(f"there is no checkpoint '{checkpoint}'")


def check_start_exists(load_from: str) -> None:
    """Check that the file of ``load_from`` exists, as the above."""
    try:
        check_checkpoint_exists(load_from)
    except CheckpointNotFoundError as error:
        raise CheckpointNotFoundError(
            f'load_from: {error}; train its model first, or name another file: '
            '--cfg-options load_from=PATH, or none: load_from=None'
        ) from error


def check_latest_checkpoint_exists(work_dir: str) -> str | None:
    """Find the file named by ``last_checkpoint`` of a folder, which must exist.

    Returns:
        str, optional: Its path, None if no checkpoint was written there.
    """
    latest = find_latest_checkpoint(work_dir)
    if latest is not None and not os.path.isfile(latest):
        others = sorted(map(str, Path(work_dir).glob('*.pth')))
        raise CheckpointNotFoundError(
            f"{work_dir}/last_checkpoint names '{latest}', which does not "
            'exist. Name the checkpoint: --resume PATH, out of: '
            f'{", ".join(others) or "none"}'
        )
    return latest
