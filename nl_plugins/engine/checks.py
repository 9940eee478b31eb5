"""Checks of what a run needs, before the expensive part of it starts.

Each check raises an error of :mod:`nl_plugins.errors` whose message says what
is wrong and how to fix it.
"""

import inspect
import os
from collections.abc import Iterator

from mmengine.config import Config
from mmengine.registry import LOOPS

from ..errors import DatasetNotFoundError, OptionError, did_you_mean


def check_loops(cfg: Config, *splits: str) -> None:
    """Check that the loops of some splits take the keys of their configs.

    Args:
        cfg (Config): Config of a run.
        *splits (str): ``'train'``, ``'val'`` or ``'test'``. Splits that the
            config does not have are skipped.

    Raises:
        OptionError: If a loop does not exist or does not take a key.
    """
    for split in splits:
        name = f'{split}_cfg'
        options = dict(cfg.get(name) or {})
        # as Runner.build_train_loop, build_val_loop and build_test_loop
        by_epoch = options.pop('by_epoch', True)
        train = 'EpochBasedTrainLoop' if by_epoch else 'IterBasedTrainLoop'
        defaults = dict(train=train, val='ValLoop', test='TestLoop')
        loop = options.pop('type', defaults[split])
        scope = options.pop('_scope_', cfg.get('default_scope'))
        if isinstance(loop, str):
            with LOOPS.switch_scope_and_registry(scope) as registry:
                found = registry.get(loop)
            if found is None:
                raise OptionError(
                    f'{name}: there is no loop {loop!r}'
                    + did_you_mean(LOOPS.module_dict, loop)
                )
            loop = found
        known = inspect.signature(loop).parameters
        unknown = [key for key in options if key not in known]
        if unknown and 'kwargs' not in known:
            raise OptionError(
                f'{name}: {loop.__name__} does not take {", ".join(unknown)}'
                + did_you_mean(known, *unknown)
            )


def check_datasets(cfg: Config, *splits: str) -> None:
    """Check that the data of some splits exists.

    Args:
        cfg (Config): Config of a run.
        *splits (str): ``'train'``, ``'val'`` or ``'test'``. Splits that the
            config does not have are skipped.

    Raises:
        DatasetNotFoundError: If a folder or annotation file is missing.
    """
    missing: dict[str, str] = {}
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
            'Put it there, or say where it is: --data-root DIR, or --cfg-options '
            f'{next(iter(missing))}=PATH'
        )


def _missing_data(node: object, key: str) -> Iterator[tuple[str, str]]:
    """Keys and paths that do not exist, in a dataloader or dataset.

    The keys of wrapped datasets are ``dataset`` and ``datasets``.
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
    # MMPose's detections of persons; it does not join them to the root
    boxes = dataset.get('bbox_file') or ''
    if not _exists(boxes):
        yield f'{key}.bbox_file', boxes


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
    """Whether a path exists. URLs and empty paths count as existing."""
    return not path or '://' in path or os.path.exists(path)
