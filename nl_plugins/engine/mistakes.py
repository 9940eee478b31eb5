"""Mistakes in a config that show when something is built from it."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from ..errors import ConfigError, did_you_mean
from ..insertion.insert import argument_names
from ..registry import find_type, registered

#: Of a Python call, of mmengine's registries, and of mmcv's layers.
_NO_ARGUMENT = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword .* '(\w+)'")
_NO_TYPE = re.compile(r'(\S+) is not in the (.+?) registry')
_NO_LAYER = 'Cannot find None in registry'


@contextlib.contextmanager
def name_mistakes(cfg: Config) -> Iterator[None]:
    """Name the key of a config because of which something cannot be built.

    Args:
        cfg (Config): What is built in this context.

    Raises:
        ConfigError: In place of the error of a registry for an unknown type,
            and of the ``TypeError`` for an argument that is a key of the config.
    """
    try:
        yield
    except (KeyError, TypeError) as error:
        message = _explain(str(error.args[0] if error.args else ''), cfg)
        if not message:
            raise
        raise ConfigError(message) from error


def _explain(error: str, cfg: Config) -> str:
    """The message for an error, ``''`` if it is not due to the config."""
    types = registered()
    items = list(_items(cfg.to_dict()))
    if found := _NO_ARGUMENT.search(error):
        keys = [(path, parent) for path, parent, key, _ in items if key == found[2]]
        known = [
            name
            for _, parent in keys
            for name in argument_names(types.get(str(parent.get('type'))))
        ]
        paths = ', '.join(path for path, _ in keys)
        hint = did_you_mean(known, found[2])
        return paths and f'{paths}: {found[1]} takes no {found[2]!r}{hint}'
    if found := _NO_TYPE.match(error):
        paths = ', '.join(path for path, _, _, value in items if value == found[1])
        return (
            f'{paths or "type"}: there is no {found[1]!r} in the registry {found[2]}'
            + did_you_mean(types, found[1])
        )
    if error.startswith(_NO_LAYER):
        unknown = {
            f'{path}.type': value['type']
            for path, _, key, value in items
            if key in ('norm_cfg', 'conv_cfg')
            and isinstance(value, dict)
            and isinstance(value.get('type'), str)
            and find_type(value['type']) is None
        }
        layers = ', '.join(f'{path} = {name!r}' for path, name in unknown.items())
        hint = did_you_mean(types, *unknown.values())
        return layers and f'there is no layer {layers}{hint}'
    return ''


def _items(node: Any, path: str = '') -> Iterator[tuple[str, dict, str, Any]]:
    """Path, parent, key and value of everything in a config."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield f'{path}{key}', node, key, value
            yield from _items(value, f'{path}{key}.')
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _items(value, f'{path}{index}.')
