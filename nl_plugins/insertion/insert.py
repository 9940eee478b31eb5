"""Build a block for a place and attach it there.

A block becomes a child of its target and runs in a forward hook of the
target, so no existing key of the state dict changes. The hook gets the block
by name from the module that it is called with, so copies of the model (EMA,
pickle) run their own blocks.
"""

import inspect
import re
import warnings
from collections.abc import Iterator
from copy import copy
from functools import partial
from typing import Any

import torch
from mmcv.cnn.bricks.non_local import _NonLocalNd
from mmcv.cnn.bricks.plugin import infer_abbr
from torch import Tensor, nn
from torch.fx import Proxy

from ..errors import ArgumentError, InsertionError, did_you_mean
from .places import KEYS, Insertion
from .probe import Call


def build_block(
    base: nn.Module, insertion: Insertion, calls: list[Call] | None
) -> nn.Module:
    """Build a block for its place, with ``in_channels`` of the target.

    Args:
        base (nn.Module): The module that the place is relative to.
        insertion (Insertion): The block and its place.
        calls (list[Call], optional): The calls of the target in one forward
            of the base, None if they are unknown.

    Returns:
        nn.Module: The block, not attached.

    Raises:
        InsertionError: If the target cannot hold a block, or its tensor has
            other dimensions or channels than the block. A ``ValueError``.
        ArgumentError: If the block does not take an argument. A
            ``TypeError``.
    """
    block_type, args, side = insertion[:3]
    place = insertion.place
    target = base.get_submodule(insertion.target)
    shape = None if calls is None else _check_calls(calls, insertion)
    axis = insertion.channel_axis
    channels = shape[axis] if shape else _own_channels(target, side)
    ndim = getattr(block_type, 'ndim', None)
    if ndim and args.get('num_frames'):  # the frames are in the batch
        ndim -= 1
    if shape and ndim and len(shape) != ndim + 2:
        raise InsertionError(
            f'{block_type.__name__} takes {ndim} dimensions after batch and '
            f'channels, but the tensor {place} has the shape {_format(shape)}'
        )
    if shape and channels is None:
        number = {1: 'second', len(shape) - 1: 'last'}[axis]
        expected = 'B, C, ...' if axis == 1 else 'B, ..., C'
        raise InsertionError(
            f'{place}: the {number} size of this tensor follows the size of the '
            f'input, so it is not ({expected}), which the block takes; it takes '
            "(B, N, C) with layout='BNC' (1d), (B, H, W, C) with layout='BHWC' (2d)"
        )
    is_known = shape is not None and None in shape
    if ndim == 1 and not (is_known or insertion.layout or _is_channels_first(target)):
        raise InsertionError(
            f'{block_type.__name__} takes (B, C, N), but the tensor {place} '
            'may as well be (B, N, C), as in transformers: give '
            "layout='BCN' or layout='BNC'"
        )
    if 'in_channels' in inspect.signature(block_type).parameters:
        if channels is None and 'in_channels' not in args:
            raise InsertionError(
                f'the channels {place} cannot be inferred: give in_channels '
                f'of the {block_type.__name__}'
            )
        args = dict(in_channels=channels) | args
        if shape and channels != args['in_channels']:
            raise InsertionError(
                f'the tensor {place} has {channels} channels, but in_channels '
                f'of the {block_type.__name__} is {args["in_channels"]!r}'
            )
    try:
        block = block_type(**args)
    except (TypeError, ValueError, KeyError) as error:
        error_type = ArgumentError if isinstance(error, TypeError) else InsertionError
        message = f'{block_type.__name__} {place}: {error}'
        unknown = unknown_argument(error)
        if unknown:
            message += did_you_mean([*argument_names(block_type), *KEYS], unknown)
        raise error_type(message) from error
    parameters = list(target.parameters())
    is_frozen = parameters and not any(p.requires_grad for p in parameters)
    if is_frozen and insertion.frozen is None:
        warnings.warn(
            f'{block_type.__name__} {place} lies in a frozen stage: it is '
            'frozen with it and will not be trained, unless it has frozen=False',
            stacklevel=4,
        )
    # The first train() of the base would be too late for DDP.
    if insertion.frozen or is_frozen and insertion.frozen is None:
        block.requires_grad_(False)
    return block


def unknown_argument(error: Exception) -> str:
    """Name of the argument that was not taken, ``''`` for another error."""
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    return found[1] if found else ''


def argument_names(built: Any) -> list[str]:
    """Arguments of a class, and of its bases, to which it may hand them on."""
    return [
        name
        for base in getattr(built, '__mro__', ())
        if '__init__' in vars(base)
        for name in inspect.signature(vars(base)['__init__']).parameters
    ]


def _check_calls(calls: list[Call], insertion: Insertion) -> tuple[int | None, ...]:
    """Check that a place can hold a block and return its tensor's shape."""
    place = insertion.place
    if not calls:
        raise InsertionError(
            f'{place}: this module does not run when the base is evaluated, '
            'so a block there would not either'
        )
    if len(calls) > 1 and not insertion.per_call:
        raise InsertionError(_repeated_message(place, len(calls)))
    shapes = [_tensor_shape(call, insertion) for call in calls]
    axis = insertion.channel_axis
    if insertion.channels:
        shapes = [s for s in shapes if s[axis] == insertion.channels] or shapes
    for shape in shapes[1:]:
        if len(shape) != len(shapes[0]) or shape[axis] != shapes[0][axis]:
            raise InsertionError(
                f'{place}: the {len(shapes)} calls have tensors with different '
                f'channels or dimensions, {_format(shapes[0])} and {_format(shape)}; '
                'in_channels= chooses those with these channels'
            )
    return shapes[0]


def _tensor_shape(call: Call, insertion: Insertion) -> tuple[int | None, ...]:
    """Shape of the tensor that a block would work on in a call."""
    shape = getattr(call, insertion.side)
    item = insertion.item
    if insertion.side == 'before' and item is None:
        item = 0
    if item is not None:
        if isinstance(item, int) and item < 0 and isinstance(shape, dict):
            item += len(shape)
        if not isinstance(shape, dict) or item not in shape:
            items = map(repr, shape if isinstance(shape, dict) else ())
            raise InsertionError(
                f'{insertion.place}: there is no item {item!r}, it has '
                f'{", ".join(items) or "none"}'
            )
        shape = shape[item]
    if isinstance(shape, dict):
        tensors = ', '.join(
            f'item={key!r} of the shape {_format(value)}'
            for key, value in shape.items()
            if isinstance(value, tuple)
        )
        raise InsertionError(_no_tensor_message(insertion.place, tensors))
    if shape is None or len(shape) < 2:
        raise InsertionError(_no_tensor_message(insertion.place))
    return shape


def _format(shape: tuple[int | None, ...]) -> str:
    sizes = ['...' if size is None else str(size) for size in shape[1:]]
    return f'({", ".join(["B", *sizes])})'


def _repeated_message(place: str, times: int | str) -> str:
    return (
        f'{place}: this module runs {times} times per forward, and a block there '
        'would run as often; choose a place that runs once, or give per_call=True '
        'for one block that all calls share'
    )


def _no_tensor_message(place: str, tensors: str = '') -> str:
    verb = 'receives' if place.startswith('before') else 'returns'
    return (
        f'{place}: this module {verb} no single tensor of features, so '
        'there is nothing that a block could work on'
        + (f'; it {verb} {tensors}, so name one with item=' if tensors else '')
    )


def _is_channels_first(layer: nn.Module) -> bool:
    """Whether the tensors of a layer are ``(B, C, N)``."""
    return isinstance(getattr(layer, 'conv', layer), nn.modules.conv._ConvNd)


def _own_channels(target: nn.Module, side: str) -> int | None:
    """Channels according to the attributes of a layer, None without any."""
    names = 'in_channels' if side == 'before' else 'out_channels', 'num_features'
    values = (getattr(target, name, None) for name in names)
    return next((value for value in values if isinstance(value, int)), None)


def attach_block(base: nn.Module, insertion: Insertion, block: nn.Module) -> str:
    """Attach a block to its place and return its full name.

    Args:
        base (nn.Module): The module that the place is relative to.
        insertion (Insertion): The place.
        block (nn.Module): The block from :func:`build_block`.

    Returns:
        str: Name of the block in ``base.named_modules()``.
    """
    name = insertion.target
    target = base.get_submodule(name)
    child = first = (
        'non_local_block' if isinstance(block, _NonLocalNd) else infer_abbr(type(block))
    )
    number = 0
    while hasattr(target, child):
        number += 1
        child = f'{first}_{number}'
    target.add_module(child, block)
    channels = insertion.channels
    only = (insertion.channel_axis, channels) if channels else None
    arguments = child, insertion.place, only, insertion.item
    if insertion.side == 'before':
        target.register_forward_pre_hook(partial(_run_before, *arguments))
    else:
        target.register_forward_hook(partial(_run_after, *arguments))
    return f'{name}.{child}'


def _run_before(
    child: str,
    place: str,
    only: tuple[int, int] | None,
    item: int | str | None,
    module: nn.Module,
    args: tuple,
) -> tuple:
    if not args:
        raise InsertionError(_no_tensor_message(place))
    return _run_block(module, child, place, only, item or 0, args)


def _run_after(
    child: str,
    place: str,
    only: tuple[int, int] | None,
    item: int | str | None,
    module: nn.Module,
    args: tuple,
    output: Any,
) -> Any:
    return _run_block(module, child, place, only, item, output)


def _run_block(
    module: nn.Module,
    child: str,
    place: str,
    only: tuple[int, int] | None,
    item: Any,
    values: Any,
) -> Any:
    """Replace a tensor, or an item of several values, by the block's output.

    With ``only``, an axis and its size, tensors of another size are left.
    """
    x = values
    if item is not None:
        try:
            x = None if isinstance(values, Tensor) else values[item]
        except (IndexError, KeyError, TypeError):
            x = None
    block = getattr(module, child)
    if isinstance(x, Proxy):  # of torch.fx, for which a block is one node
        if only:
            raise InsertionError(f'{place}: torch.fx does not know which call this is')
        tracer: Any = x.tracer
        path = tracer.path_of_module(block)
        y = tracer.create_proxy('call_module', path, (x,), {})
    elif isinstance(x, Tensor):
        if only and x.shape[only[0]] != only[1]:
            return values
        _count_call(block, place)
        y = block(x)
    else:
        raise InsertionError(_no_tensor_message(place))
    if item is None:
        return y
    if isinstance(values, (tuple, list)):
        kind: Any = type(values)
        items = [*values[:item], y, *values[item:][1:]]
        return kind(*items) if hasattr(values, '_fields') else kind(items)
    values = copy(values)
    values[item] = y
    return values


def side_of(target: nn.Module, child: str) -> str:
    """The side of a module on which a block in it runs.

    Args:
        target (nn.Module): The module that holds the block.
        child (str): Name of the block in it.

    Returns:
        str: ``'before'`` or ``'after'``. Blocks without a hook are
        upstream's, which run at the end of the module that holds them.
    """
    for hook in target._forward_pre_hooks.values():
        if isinstance(hook, partial) and (
            hook.func is _run_before and hook.args[0] == child
        ):
            return 'before'
    return 'after'


def inserted_blocks(model: nn.Module) -> Iterator[str]:
    """Names of the blocks that :func:`WithBlocks` inserted into a model.

    Args:
        model (nn.Module): A model, or a module that contains one.

    Yields:
        str: Full names.
    """
    for name, module in model.named_modules():
        for hook in (
            *module._forward_pre_hooks.values(),
            *module._forward_hooks.values(),
        ):
            if isinstance(hook, partial) and hook.func in (_run_before, _run_after):
                yield f'{name}.{hook.args[0]}'.lstrip('.')


def blocks_of(model: nn.Module) -> dict[str, nn.Module]:
    """The blocks of a model: inserted ones, and non-local ones at any place.

    Args:
        model (nn.Module): A model, or a module that contains one.

    Returns:
        dict[str, nn.Module]: The blocks by their full names.
    """
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _NonLocalNd)
    }
    return found | {name: model.get_submodule(name) for name in inserted_blocks(model)}


# Modules that the probe did not run: their calls are counted in the first
# forward -------------------------------------------------------------------


def run_first_forward(
    base: nn.Module, names: list[str], *args: Any, **kwargs: Any
) -> Any:
    """Run ``forward`` of a base and check that its blocks run at most once.

    It is an attribute of the base until the first forward has succeeded.

    Args:
        base (nn.Module): The base.
        names (list[str]): Full names of the blocks to check.
        args, kwargs: Arguments of ``forward``.

    Returns:
        Any: The output of ``forward``.

    Raises:
        InsertionError: If a block runs a second time.
    """
    forward = type(base).forward
    if torch.compiler.is_compiling():  # keeps the check out of the graph
        return forward(base, *args, **kwargs)
    blocks = [base.get_submodule(name) for name in names]
    for block in blocks:
        vars(block)['_calls'] = 0
    try:
        output = forward(base, *args, **kwargs)
    finally:
        for block in blocks:
            del vars(block)['_calls']
    del base.forward
    return output


def _count_call(block: nn.Module, place: str) -> None:
    """Count a call of a block during :func:`run_first_forward`."""
    if torch.compiler.is_compiling() or '_calls' not in vars(block):
        return
    if vars(block)['_calls']:
        raise InsertionError(_repeated_message(place, 'several'))
    vars(block)['_calls'] = 1
