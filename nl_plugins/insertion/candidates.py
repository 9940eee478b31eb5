"""Where blocks can be inserted into a model, and what they would cost."""

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .. import blocks
from ..errors import InsertionError
from ..functional.backends import BACKENDS, use_backend
from .insert import blocks_of, build_block
from .places import Insertion, resolve_place
from .probe import Call, probe

#: Names of the kinds of blocks.
KINDS = dict(nl='NonLocal', dnl='DisentangledNonLocal')


class Place(NamedTuple):
    """A module of a model, and the block that could stand after it.

    Attributes:
        name (str): Path of the module.
        module_type (str): Its class.
        shape (tuple[int, ...], optional): Of the tensor that it returns,
            None if it returns none or several.
        obstacle (str): Why a block cannot be inserted there, ``''`` if it can.
        block (str): Class of the block, with its layout if it is needed.
        parameters (int): Of the block.
        flops (int): Of a forward, a multiplication with its addition counting as
            one.
        stored (int): Bytes that it stores for the backward pass, in float32.
    """

    name: str
    module_type: str
    shape: tuple[int, ...] | None = None
    obstacle: str = ''
    block: str = ''
    parameters: int = 0
    flops: int = 0
    stored: int = 0


def places(
    model: nn.Module, example_input: Any, block: str = 'nl', depth: int = 3
) -> list[Place]:
    """List the modules of a model after which a block could stand.

    The block is that of the tensor's dimensions, with its defaults: 1d for
    tokens, 2d for images, 3d for clips.

    Args:
        model (nn.Module): Any module.
        example_input (Tensor | tuple | dict): Input of the model, as in
            :func:`nl_plugins.insert`.
        block (str): ``'nl'`` or ``'dnl'``. Defaults to ``'nl'``.
        depth (int): Number of parts of the longest names. Defaults to 3.

    Returns:
        list[Place]: One for each module that runs, in the model's order.

    Raises:
        InsertionError: If the model does not run on ``example_input``.
        ValueError: If ``block`` has another value.
    """
    if block not in KINDS:
        raise ValueError(f'block must be one of {list(KINDS)}, but got {block!r}')
    inside = tuple(f'{name}.' for name in blocks_of(model))
    names = [
        name
        for name, module in model.named_modules()
        if name
        and name.count('.') < depth
        and not isinstance(module, (nn.ModuleList, nn.ModuleDict))
        and not f'{name}.'.startswith(inside)
    ]
    calls = probe(model, names, example_input) or {}
    return [_describe(model, name, calls[name], block) for name in names if calls[name]]


def _describe(model: nn.Module, name: str, calls: list[Call], kind: str) -> Place:
    """Describe one module."""
    module_type = type(model.get_submodule(name)).__name__
    shape: Any = calls[0].after
    if not isinstance(shape, tuple):
        shape = None
    obstacles = []
    for ndim, layout in _forms(shape):
        block_type = getattr(blocks, f'{KINDS[kind]}{ndim}d')
        insertion = Insertion(block_type, {}, 'after', name, layout)
        try:
            resolve_place(model, 'after', name)
            with warnings.catch_warnings(), torch.device('meta'):
                warnings.simplefilter('ignore')  # a frozen stage
                args = {} if layout is None else dict(layout=layout)
                insertion = insertion._replace(block_args=args)
                built = build_block(model, insertion, calls)
        except InsertionError as error:
            obstacles.append(str(error).partition(': ')[2] or str(error))
            continue
        return _costs(name, module_type, shape, built, layout)
    return Place(name, module_type, shape, obstacles[0] if obstacles else '-')


def _forms(shape: tuple[int, ...] | None) -> Iterator[tuple[int, str | None]]:
    """Dimensions and layouts of blocks that could take a tensor."""
    if shape is None:
        yield 2, None  # whose refusal is the obstacle
    elif len(shape) == 3:
        # Tokens outnumber channels seldom, and a layer of tokens is linear.
        yield 1, 'BNC'
    else:
        yield min(max(len(shape) - 2, 1), 3), None


def _costs(
    name: str,
    module_type: str,
    shape: tuple[int, ...],
    block: Any,
    layout: str | None,
) -> Place:
    """What a block costs, without data."""
    x = torch.empty(shape, device='meta')
    query, key, value, _ = block.project(block.layout.unfold(x))
    tensors = [t for t in (query, key, value) if t is not None]
    attended = value.numel() // value.shape[-2] * tensors[0].shape[-2]
    stored = 4 * (sum(t.numel() for t in tensors) + attended)
    if query is not None and key is not None:
        stored += BACKENDS['fused'].memory(query, key, value)
    # the naive backend: without the padding of the fused one
    with torch.no_grad(), use_backend('naive'):
        with FlopCounterMode(display=False) as counter:
            block(x)
    flops = counter.get_total_flops() // 2  # it counts both as two
    text = type(block).__name__ + (f', layout={layout!r}' if layout else '')
    parameters = sum(p.numel() for p in block.parameters())
    return Place(name, module_type, shape, '', text, parameters, flops, stored)
