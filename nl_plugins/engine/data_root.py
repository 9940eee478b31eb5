"""One folder for all data of a config."""

import os
from typing import Any

from mmengine.config import Config

from ..errors import OptionError
from ..toolboxes.base import unwrap_datasets


def set_data_root(cfg: Config, folder: str) -> None:
    """Read the data of all splits, with the files of their metrics, elsewhere.

    Paths below the folder that the config names go to the new one. That
    folder is ``data_root`` of its datasets or, without one (MMAction2), the
    folder of all their files.

    Args:
        cfg (Config): Config of a run, changed in place.
        folder (str): The new folder, with the layout of the old one.

    Raises:
        OptionError: If the config names no folder of data, or several.
    """
    splits = ('train', 'val', 'test')
    loaders = [f'{split}_dataloader' for split in splits]
    evaluators = [f'{split}_evaluator' for split in splits]
    datasets = [
        dataset
        for key in loaders
        if cfg.get(key)
        for dataset in unwrap_datasets(cfg[key].dataset)
    ]
    roots = {os.path.normpath(d.data_root) for d in datasets if d.get('data_root')}
    if not roots:
        paths = [
            os.path.normpath(path)
            for dataset in datasets
            for path in _strings([dataset.get('ann_file'), dataset.get('data_prefix')])
        ]
        # a relative path has no folder in common with an absolute one
        kinds = {os.path.isabs(path) for path in paths}
        roots = {os.path.commonpath(paths)} if len(kinds) == 1 else set(paths)
    if len(roots) != 1 or '' in roots:
        raise OptionError(
            f'--data-root needs a config with one folder of data, but {cfg.filename} '
            f'has {", ".join(sorted(roots)) or "none"}: set each with --cfg-options'
        )
    (root,) = roots
    for key in loaders + evaluators:
        if cfg.get(key):
            cfg[key] = _moved(cfg[key], root, folder)


def _moved(node: Any, root: str, folder: str) -> Any:
    """A part of a config, with the paths below a root in another folder."""
    if isinstance(node, dict):
        return {key: _moved(value, root, folder) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(_moved(value, root, folder) for value in node)
    if isinstance(node, str) and (
        os.path.normpath(node) == root or node.startswith(root.rstrip('/') + '/')
    ):
        return os.path.join(folder, os.path.relpath(node, root)).removesuffix('/.')
    return node


def _strings(node: Any) -> list[str]:
    """All strings in a part of a config."""
    if isinstance(node, str):
        return [node] * bool(node)
    values = node.values() if isinstance(node, dict) else node or ()
    return [text for value in values for text in _strings(value)]
