"""What a run needs, checked before its expensive part starts.

Each check raises an error of :mod:`nl_plugins.errors` with one message that
names what is wrong and what to do about it.
"""
import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from mmcv.cnn.bricks.non_local import _NonLocalNd
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner, find_latest_checkpoint
from torch import nn

from .errors import (
    CheckpointMismatchError,
    CheckpointNotFoundError,
    DatasetNotFoundError,
    OptionError,
)
from .insertion import inserted_blocks

# Data ---------------------------------------------------------------------


def check_datasets(cfg: Config, *splits: str) -> None:
    """Check that the data of some splits is there.

    Args:
        cfg (Config): Config of a run.
        *splits (str): ``'train'``, ``'val'`` or ``'test'``; those that the
            config leaves out are skipped.

    Raises:
        DatasetNotFoundError: A folder or annotation file is missing.
    """
    missing = {}
    for split in splits:
        key = f'{split}_dataloader'
        if cfg.get(key) is not None:
            missing.update(_missing_data(cfg[key], key))
        key = f'{split}_evaluator'
        if cfg.get(key) is not None:
            missing.update(_missing_annotations(cfg[key], key))
    if missing:
        found = '\n'.join(f'  {key} = {path}' for key, path in missing.items())
        raise DatasetNotFoundError(
            f'the data of this config is not there:\n{found}\n'
            'Put it there, or say where it is: --cfg-options '
            f'{next(iter(missing))}=PATH')


def _missing_data(node: object, key: str) -> Iterator[tuple[str, str]]:
    """Keys and paths that do not exist, below a dataloader or dataset.

    Wrappers hold what they wrap as ``dataset`` or ``datasets``.
    """
    if isinstance(node, (list, tuple)):
        for index, item in enumerate(node):
            yield from _missing_data(item, f'{key}.{index}')
    elif isinstance(node, dict):
        inner = [name for name in ('dataset', 'datasets') if name in node]
        for name in inner:
            yield from _missing_data(node[name], f'{key}.{name}')
        if not inner and _is_local(node):
            yield from _missing_files(node, key)


def _missing_files(dataset: dict, key: str) -> Iterator[tuple[str, str]]:
    """Keys and paths of one dataset that do not exist."""
    root = dataset.get('data_root') or ''
    if not _exists(root):
        yield f'{key}.data_root', root
        return
    paths = {f'{key}.ann_file': dataset.get('ann_file')}
    prefix = dataset.get('data_prefix')
    if isinstance(prefix, dict):
        paths |= {f'{key}.data_prefix.{k}': v for k, v in prefix.items()}
    else:
        paths[f'{key}.data_prefix'] = prefix
    for name, path in paths.items():
        if path and isinstance(path, str):
            path = os.path.join(root, path)
            if not _exists(path):
                yield name, path


def _missing_annotations(node: object, key: str) -> Iterator[tuple[str, str]]:
    """Keys and annotation files of metrics that do not exist."""
    if isinstance(node, (list, tuple)):
        for index, item in enumerate(node):
            yield from _missing_annotations(item, f'{key}.{index}')
    elif isinstance(node, dict) and _is_local(node):
        path = node.get('ann_file')
        if path and isinstance(path, str) and not _exists(path):
            yield f'{key}.ann_file', path


def _is_local(node: dict) -> bool:
    """Whether a dataset or metric reads from the file system."""
    backend = node.get('backend_args') or {}
    return backend.get('backend', 'local') == 'local'


def _exists(path: str) -> bool:
    """Whether a path exists, or cannot be checked as it is a URL or ''."""
    return not path or '://' in path or os.path.exists(path)


# Checkpoints --------------------------------------------------------------


class CheckpointFitHook(Hook):
    """Refuses a checkpoint that belongs to another model.

    mmengine loads what fits, logs the rest as a warning and goes on, so a
    test would report the result of parameters that were never loaded.
    Parts that the model does not have at all (the ``ema_`` copies of old
    checkpoints, an auxiliary head) remain mmengine's warning.
    """
    # After hooks that change the checkpoint, such as EMAHook.
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
                    f'--cfg-options load_from={name}')
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        check_fit(model, checkpoint, name, runner.cfg.filename)


class OptimizedBlocksHook(Hook):
    """Refuses to train blocks of which the optimizer has only a part.

    Some constructors of optimizers pass the parameters of the layers they
    know alone, and ``gamma`` of a gate belongs to no layer.
    """

    def before_train(self, runner: Runner) -> None:
        wrapper = runner.optim_wrapper
        wrappers = wrapper.values() if isinstance(
            wrapper, OptimWrapperDict) else [wrapper]
        known = {
            id(parameter) for w in wrappers for group in w.param_groups
            for parameter in group['params']
        }
        model = runner.model
        if not known & {id(p) for p in model.parameters()}:
            return  # a strategy optimizes copies
        names = {
            name for name, module in model.named_modules()
            if isinstance(module, _NonLocalNd)
        } | set(inserted_blocks(model))
        missing = [
            f'{name}.{key}' for name in sorted(names)
            for key, parameter in model.get_submodule(name).named_parameters()
            if parameter.requires_grad and id(parameter) not in known
        ]
        if missing:
            constructor = runner.cfg.get('optim_wrapper', {}).get(
                'constructor', 'DefaultOptimWrapperConstructor')
            raise OptionError(
                'these parameters would not be trained, since the optimizer '
                f'does not have them: {", ".join(missing)}. Its constructor '
                f'{constructor!r} leaves them out. Use '
                '--cfg-options optim_wrapper.constructor='
                'DefaultOptimWrapperConstructor, or a block without them')


def check_fit(model: nn.Module, checkpoint: dict, name: str,
              config: str) -> None:
    """Check that a checkpoint belongs to a model, and load it.

    Args:
        model (nn.Module): The model, not wrapped.
        checkpoint (dict): What was read from the file.
        name (str): Name of the checkpoint in messages.
        config (str): Name of the config in messages.

    Raises:
        CheckpointMismatchError: Parameters are missing, unknown or of
            another shape.
    """
    _check_holds_parameters(checkpoint, name)
    problems = _differences(model, checkpoint)
    if problems:
        found = '\n'.join(f'  {problem}' for problem in problems)
        raise CheckpointMismatchError(
            f'{name} does not fit the model of {config}:\n{found}')


def _check_holds_parameters(checkpoint: object, name: str) -> None:
    if not isinstance(checkpoint, dict):
        raise CheckpointMismatchError(f'{name} holds no parameters, but a '
                                      f'{type(checkpoint).__name__}')


def _differences(model: nn.Module, checkpoint: dict) -> list[str]:
    """How a checkpoint differs from a model, abbreviated; empty if it fits.

    Loads the parameters as a side effect, so that modules that convert old
    checkpoints do so.
    """
    loaded = checkpoint.get('state_dict', checkpoint)
    state = OrderedDict(
        (re.sub(r'^module\.', '', key), v) for key, v in loaded.items())
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
    missing = [key for key in missing if 'num_batches_tracked' not in key]
    unexpected = [key for key in unexpected if key.split('.')[0] in parts]
    return [
        f'{what} ({len(keys)}): ' + ', '.join(keys[:3]) +
        (', ...' if len(keys) > 3 else '')
        for what, keys in (('missing in the checkpoint', missing),
                           ('unknown to the model', unexpected),
                           ('of another shape', mismatched)) if keys
    ]


def check_checkpoint(checkpoint: str) -> None:
    """Check that a checkpoint exists, unless it is a URL or model name."""
    if '://' not in checkpoint and not os.path.isfile(checkpoint):
        raise CheckpointNotFoundError(
            f"there is no checkpoint '{checkpoint}'")


def check_latest_checkpoint(work_dir: str) -> None:
    """Check that the latest checkpoint of a folder, if any, still exists."""
    latest = find_latest_checkpoint(work_dir)
    if latest is not None and not os.path.isfile(latest):
        others = sorted(map(str, Path(work_dir).glob('*.pth')))
        raise CheckpointNotFoundError(
            f"{work_dir}/last_checkpoint names '{latest}', which does not "
            'exist. Name the checkpoint: --resume PATH, out of: '
            f'{", ".join(others) or "none"}')


