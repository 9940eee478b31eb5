"""Which blocks a config adds to a model, and where."""

import inspect
from collections.abc import Iterator
from typing import Any


def describe_blocks(model: dict, path: str = '') -> Iterator[str]:
    """Say which blocks the config of a model adds, and where.

    Args:
        model (dict): Config of a model or of a part of it.
        path (str): Name of the part. Defaults to ``''``, the whole.

    Yields:
        str: A line for each entry of ``blocks`` of a ``WithBlocks``, for
        each of this package's heads, for each of ``plugins``, and for
        upstream's own ways to a non-local block.
    """
    inside = f' of {path}' if path else ''
    kind = _type_name(model)
    if kind == 'nl_plugins.WithBlocks':
        blocks = model['blocks']
        if isinstance(blocks, dict):  # with names, of which some are removed
            blocks = filter(None, blocks.values())
        for block in blocks:
            if _type_name(block).startswith('torch.'):
                continue  # a layer, such as a pooling
            place = 'before' if 'before' in block else 'after'
            places = block[place]
            if not isinstance(places, str):
                places = ', '.join(places)
            yield f'{_call(block, place)} {place} {places}{inside}'
    if kind in ('nl_plugins.NLHead', 'nl_plugins.DNLHead'):
        yield _call(_head_options(model))
    elif kind.rpartition('.')[2] in ('NLHead', 'DNLHead'):
        yield f"upstream's {kind}"
    if any(_as_list(model.get('non_local'))):
        yield f"upstream's non_local{inside}"
    if model.get('refine_type') == 'non_local':
        yield f"upstream's {kind}{inside}"
    for plugin in model.get('plugins') or []:
        stages = [
            f'layer{number}'
            for number, used in enumerate(plugin.get('stages') or (), 1)
            if used
        ]
        place = ' of '.join(filter(None, [plugin['position'], ', '.join(stages)]))
        yield f'{_call(plugin["cfg"])} {place}{inside}'
    for key, value in model.items():
        for part in _as_list(value):
            if isinstance(part, dict) and key not in ('blocks', 'plugins'):
                yield from describe_blocks(part, f'{path}.{key}'.lstrip('.'))


def _as_list(value: Any) -> list:
    """The parts of a list of lists, or the one part."""
    if not isinstance(value, (list, tuple)):
        return [value]
    return [part for item in value for part in _as_list(item)]


def _call(block: dict, *without: str) -> str:
    """The type of a block and its options."""
    options = ', '.join(
        f'{key}={_short(value)}'
        for key, value in block.items()
        if key not in ('type', *without)
    )
    name = _type_name(block).removeprefix('nl_plugins.')
    return f'{name} ({options})' if options else name


def _type_name(cfg: dict) -> str:
    """Type of a config; of a class, as a registry would name it."""
    kind = cfg.get('type', '')
    if isinstance(kind, str):
        return kind
    return f'{kind.__module__.partition(".")[0]}.{kind.__name__}'


def _short(value: Any) -> str:
    if isinstance(value, dict):
        parts = ', '.join(f'{key}: {_short(part)}' for key, part in value.items())
        value = _type_name(value) or f'{{{parts}}}'
    if isinstance(value, (list, tuple)):
        value = ' + '.join(map(str, value))
    return str(value)


def _head_options(head: dict) -> dict:
    """What a head hands on to its block, without upstream's defaults."""
    from mmseg.models import decode_heads

    upstream = getattr(decode_heads, _type_name(head).rpartition('.')[2])
    parameters = inspect.signature(upstream.__init__).parameters
    return (
        dict(type=head['type'])
        | {
            key: head[key]
            for key, parameter in parameters.items()
            if key in head and head[key] != parameter.default
        }
        | (head.get('block') or {})
    )
