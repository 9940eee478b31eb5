"""Places: the module of a base that a block is attached to, and its side."""

import warnings
from typing import NamedTuple

from torch import nn

from ..blocks.base import NonLocalBlock
from ..blocks.layout import LAYOUTS
from ..errors import InsertionError, did_you_mean
from ..registry import MODELS, find_type

#: Keys of a block's config that are no arguments of the block.
KEYS = ('type', 'before', 'after', 'layout', 'item', 'per_call', 'frozen')


class Insertion(NamedTuple):
    """A block and its place.

    Attributes:
        block_type (type): Class of the block.
        block_args (dict): Its arguments.
        side (str): ``'before'`` or ``'after'``.
        target (str): Name of the module in ``base.named_modules()``.
        layout (str, optional): Order of the tensor's dimensions, such as
            ``'BCN'``, or None if it is inferred.
        item (int | str, optional): Which positional argument (before), or
            item of the output (after), is the tensor.
        per_call (bool): Whether the block may run several times per forward.
        frozen (bool, optional): False if it is trained in a frozen stage.
        path (str): The place as the user wrote it, ``''`` for ``target``.
    """

    block_type: type
    block_args: dict
    side: str
    target: str
    layout: str | None = None
    item: int | str | None = None
    per_call: bool = False
    frozen: bool | None = None
    path: str = ''

    @property
    def place(self) -> str:
        """Side and place, in messages."""
        return f'{self.side}={(self.path or self.target)!r}'

    @property
    def channels(self) -> int | None:
        """The channels of the calls that a block with ``per_call`` is for."""
        return self.block_args.get('in_channels') if self.per_call else None

    @property
    def channel_axis(self) -> int:
        """The dimension of the tensor's channels."""
        return (self.layout or 'BC').index('C')


def parse_block(base: nn.Module, cfg: dict) -> list[Insertion]:
    """Resolve the type and the places in the config of a block.

    Args:
        base (nn.Module): The module that the places are relative to.
        cfg (dict): The config, see :func:`nl_plugins.WithBlocks`.

    Returns:
        list[Insertion]: The block at each of its places.

    Raises:
        InsertionError: If the type or a place does not exist, or the config
            names no place. A ``ValueError``.
    """
    if not isinstance(cfg, dict):
        raise InsertionError(f'a block must be a dict, but got {cfg!r}')
    args = dict(cfg)
    block_type = args.pop('type', None)
    if isinstance(block_type, str):
        found = find_type(block_type)
        if found is None:
            raise InsertionError(
                f'unknown block type {block_type!r}; nl_plugins has '
                + ', '.join(
                    f"'nl_plugins.{name}'"
                    for name in sorted(MODELS.module_dict)
                    if name != 'WithBlocks'
                )
            )
        if block_type in MODELS.module_dict and found is not MODELS.get(block_type):
            warnings.warn(
                f"type='{block_type}' is {found.__module__.partition('.')[0]}'s block; "
                f"that of this package is type='nl_plugins.{block_type}'",
                stacklevel=4,
            )
        block_type = found
    if not isinstance(block_type, type):
        raise InsertionError(
            "a block needs a 'type', the name or class of a module, but got "
            f'{block_type!r} in {cfg}' + did_you_mean(['type'], *args)
        )
    sides = [p for p in ('before', 'after') if p in args]
    if len(sides) != 1:
        raise InsertionError(
            "a block needs one of 'before' and 'after', but got "
            f'{sides or "none of them"} in {cfg}'
            + ('' if sides else did_you_mean(['before', 'after'], *args))
        )
    side = sides[0]
    places = args.pop(side)
    layout = args.pop('layout', None)
    if layout is not None:
        allowed = [layout for layouts in LAYOUTS.values() for layout in layouts[:1]]
        if issubclass(block_type, NonLocalBlock):
            args['layout'] = layout
            allowed = list(LAYOUTS[block_type.ndim])
        if layout not in allowed:
            raise InsertionError(
                f'layout of a {block_type.__name__} must be one of {allowed}, but '
                f'got {layout!r}'
            )
    item = args.pop('item', None)
    if isinstance(item, bool) or not isinstance(item, (int, str, type(None))):
        raise InsertionError(f'item must be an index or a key, but got {item!r}')
    flags = {name: args.pop(name, None) for name in ('per_call', 'frozen')}
    for name, value in flags.items():
        if value not in (None, True, False):
            raise InsertionError(f'{name} must be True or False, but got {value!r}')
    options = dict(
        layout=layout,
        item=item,
        per_call=bool(flags['per_call']),
        frozen=flags['frozen'],
    )
    if isinstance(places, str):
        places = [places]
    if (
        not places
        or not isinstance(places, (list, tuple))
        or not all(isinstance(place, str) for place in places)
    ):
        raise InsertionError(
            f'{side} must be the path of a module or a list of paths, '
            f'but got {places!r}'
        )
    return [
        Insertion(
            block_type,
            args,
            side,
            resolve_place(base, side, place),
            **options,
            path=place,
        )
        for place in places
    ]


def resolve_place(base: nn.Module, side: str, place: str) -> str:
    """Resolve a place to the full name of a module that can hold a block.

    Args:
        base (nn.Module): The module that the path is relative to.
        side (str): ``'before'`` or ``'after'``.
        place (str): Path of a module; integers may be negative. A
            ``Sequential`` stands for its first or last child.

    Returns:
        str: Name of the module in ``base.named_modules()``.

    Raises:
        InsertionError: If there is no such module or it cannot hold a
            block. A ``ValueError``.
    """
    module = base
    names: list[str] = []
    for part in place.split('.'):
        children = [name for name, _ in module.named_children()]
        if (
            part.startswith('-')
            and part[1:].isdigit()
            and (1 <= int(part[1:]) <= len(children))
        ):
            part = children[int(part)]
        if part not in children:
            where = '.'.join(names) or type(base).__name__
            raise InsertionError(
                f'unknown place {place!r}: {where!r} has no child {part!r}, '
                f'it has {", ".join(map(repr, children)) or "none"}'
                + did_you_mean(children, part)
            )
        module = getattr(module, part)
        names.append(part)
    # A child of a Sequential would run as one of its layers.
    while isinstance(module, nn.Sequential) and len(module):
        children = [name for name, _ in module.named_children()]
        names.append(children[0 if side == 'before' else -1])
        module = getattr(module, names[-1])
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        raise InsertionError(
            f'{side}={place!r}: a block in a {type(module).__name__} '
            'would become one of its layers; choose one of its children, '
            f'{", ".join(name for name, _ in module.named_children())}'
        )
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        raise InsertionError(
            f'{side}={place!r}: a {type(module).__name__} is exchanged '
            'when norms are synchronized or fused, and the block would be '
            'lost with it; choose the module before or after it'
        )
    return '.'.join(names)
