"""Insert blocks at named places of any registered module.

A block becomes a child of its target and runs in a forward hook of it, so no
existing key of the state dict changes. The hooks find the block by its name
in the module that they are called with: copies of the model (EMA, pickle)
run their own blocks.
"""

import inspect
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple

import torch
from mmcv.cnn.bricks.non_local import _NonLocalNd
from mmcv.cnn.bricks.plugin import infer_abbr
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.runner.checkpoint import load_state_dict
from torch import Tensor, nn

from ..errors import ArgumentError, InsertionError
from ..registry import MODELS
from .probe import Call, probe


@MODELS.register_module()
def WithBlocks(base: str | type, blocks: Sequence[dict], **kwargs: Any) -> nn.Module:
    """Build a module and insert blocks into it.

    .. code-block:: python

        backbone=dict(
            type='nl_plugins.WithBlocks',
            base='ResNet',
            blocks=[dict(type='nl_plugins.NonLocal2d', before='layer3.-1')],
            depth=50, ...)

    Inserted blocks keep their initial weights, whatever ``init_weights`` of
    the base does to the layers below it, unless the base loads a checkpoint
    that holds them.

    Args:
        base (str | type): Type of the module to build, looked up in the
            current scope: a backbone, neck, head or a whole model.
        blocks (Sequence[dict]): Configs of the blocks. ``type`` is any
            registered module or a class; ``after`` or ``before`` names the
            place: a module path relative to the base, in which integers may
            be negative, or a list of such paths, each of which gets a
            separate block. ``in_channels`` may be left out. ``layout='BCN'``
            states that the tensor is ``(B, C, N)``; a 1d block needs it where
            that cannot be found out. Everything else goes to the block.
        kwargs: Arguments of ``base``.

    Returns:
        nn.Module: The base itself, with its blocks.

    Raises:
        InsertionError: If a place or a type does not exist, the channels are
            unknown or do not fit, or the target cannot hold a block (it runs
            more than once per forward, or passes no tensor on). A
            ``ValueError``. The first forward raises it for modules that do
            not run on an image alone, such as heads.
        ArgumentError: If a block does not take an argument. A
            ``TypeError``.
    """
    if not isinstance(blocks, (list, tuple)):
        raise InsertionError(f'blocks must be a list of dicts, but got {blocks!r}')
    module = MMENGINE_MODELS.build(dict(type=base, **kwargs))
    insertions = [insertion for cfg in blocks for insertion in _parse(module, cfg)]
    calls = probe(module, {insertion.target for insertion in insertions}) or {}
    # All are built before the first is attached: a target looks the same to
    # every block that goes to it.
    built = [
        _build(module, insertion, calls.get(insertion.target))
        for insertion in insertions
    ]
    names = [
        _attach(module, insertion, block) for insertion, block in zip(insertions, built)
    ]
    unseen = [
        name
        for name, insertion in zip(names, insertions)
        if calls.get(insertion.target) is None
    ]
    if unseen:
        # Not hooks: MMSegmentation calls forward() of its heads itself.
        module.forward = partial(_first_forward, module, unseen)
    if hasattr(module, 'init_weights'):
        # An attribute of the instance, bound by a partial: unlike a closure
        # it follows the module into its copies.
        module.init_weights = partial(_init_weights, module, names)
    return module


class _Insertion(NamedTuple):
    """A block and the one place it goes to."""

    block_type: type
    block_args: dict
    position: str  # 'before' or 'after'
    target: str  # full name of the module
    layout: str | None


def _parse(base: nn.Module, cfg: dict) -> list[_Insertion]:
    if not isinstance(cfg, dict):
        raise InsertionError(f'a block must be a dict, but got {cfg!r}')
    args = dict(cfg)
    block_type = args.pop('type', None)
    if isinstance(block_type, str):
        # In the current scope, like the base.
        with MMENGINE_MODELS.switch_scope_and_registry(None) as registry:
            found = registry.get(block_type)
        if found is None:
            raise InsertionError(
                f'unknown block type {block_type!r}; nl_plugins has '
                + ', '.join(
                    f"'nl_plugins.{name}'"
                    for name in sorted(MODELS.module_dict)
                    if name != 'WithBlocks'
                )
            )
        block_type = found
    if not isinstance(block_type, type):
        raise InsertionError(
            "a block needs a 'type', the name or class of a module, but got "
            f'{block_type!r} in {cfg}'
        )
    positions = [p for p in ('before', 'after') if p in args]
    if len(positions) != 1:
        raise InsertionError(
            "a block needs one of 'before' and 'after', but got "
            f'{positions or "none of them"} in {cfg}'
        )
    position = positions[0]
    places = args.pop(position)
    layout = args.pop('layout', None)
    if layout not in (None, 'BCN'):
        raise InsertionError(f"layout must be 'BCN', but got {layout!r}")
    if isinstance(places, str):
        places = [places]
    if (
        not places
        or not isinstance(places, (list, tuple))
        or not all(isinstance(place, str) for place in places)
    ):
        raise InsertionError(
            f'{position} must be the path of a module or a list of paths, '
            f'but got {places!r}'
        )
    return [
        _Insertion(block_type, args, position, _resolve(base, position, place), layout)
        for place in places
    ]


def _resolve(base: nn.Module, position: str, place: str) -> str:
    """The full name of the module at a place."""
    module, names = base, []
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
            close = get_close_matches(part, children, n=1)
            hint = f'; did you mean {close[0]!r}?' if close else ''
            raise InsertionError(
                f'unknown place {place!r}: {where!r} has no child {part!r}, '
                f'it has {", ".join(map(repr, children)) or "none"}{hint}'
            )
        module = getattr(module, part)
        names.append(part)
    # A child of a Sequential would run as one of its layers.
    while isinstance(module, nn.Sequential) and len(module):
        children = [name for name, _ in module.named_children()]
        names.append(children[0 if position == 'before' else -1])
        module = getattr(module, names[-1])
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        raise InsertionError(
            f'{position}={place!r}: a block in a {type(module).__name__} '
            'would become one of its layers; choose one of its children, '
            f'{", ".join(name for name, _ in module.named_children())}'
        )
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        raise InsertionError(
            f'{position}={place!r}: a {type(module).__name__} is exchanged '
            'when norms are synchronized or fused, and the block would be '
            'lost with it; choose the module before or after it'
        )
    return '.'.join(names)


def _build(
    base: nn.Module, insertion: _Insertion, calls: list[Call] | None
) -> nn.Module:
    """Build a block that fits its place."""
    block_type, args, position, name, layout = insertion
    place = f'{position}={name!r}'
    target = base.get_submodule(name)
    shape = None
    if calls is not None:
        shape = _check_calls(calls, position, place)
    channels = shape[1] if shape else _own_channels(target, position)
    ndim = getattr(block_type, 'ndim', None)
    if ndim and args.get('num_frames'):  # which are in the batch
        ndim -= 1
    if shape and ndim and len(shape) != ndim + 2:
        raise InsertionError(
            f'{block_type.__name__} takes {ndim} dimensions after batch and '
            f'channels, but the tensor {place} has the shape '
            f'(B, {shape[1]}{", ..." * (len(shape) - 2)})'
        )
    if ndim == 1 and not (shape or layout or _is_channels_first(target)):
        raise InsertionError(
            f'{block_type.__name__} takes (B, C, N), but the tensor {place} '
            'may as well be (B, N, C), as in transformers: if it is '
            "(B, C, N), give layout='BCN'"
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
                f'of the {block_type.__name__} is {args["in_channels"]}'
            )
    try:
        block = block_type(**args)
    except (TypeError, ValueError, KeyError) as error:
        error_type = ArgumentError if isinstance(error, TypeError) else InsertionError
        raise error_type(f'{block_type.__name__} {place}: {error}') from error
    parameters = list(target.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        warnings.warn(
            f'{block_type.__name__} {place} lies in a frozen stage: it is '
            'frozen with it and will not be trained',
            stacklevel=4,
        )
        # Now, not with the first train() of the base: DDP counts on it.
        block.requires_grad_(False)
    return block


def _attach(base: nn.Module, insertion: _Insertion, block: nn.Module) -> str:
    """Make a block run at its place and return its full name."""
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
    if insertion.position == 'before':
        target.register_forward_pre_hook(partial(_run_before, child, name))
    else:
        target.register_forward_hook(partial(_run_after, child, name))
    return f'{name}.{child}'


def position_of(target: nn.Module, child: str) -> str:
    """On which side of a module a block in it runs.

    Args:
        target (nn.Module): The module that holds the block.
        child (str): Name of the block in it.

    Returns:
        str: ``'before'`` or ``'after'``. Blocks that no hook runs are
        upstream's, which run at the end of the module that holds them.
    """
    for hook in target._forward_pre_hooks.values():
        if isinstance(hook, partial) and (
            hook.func is _run_before and hook.args[0] == child
        ):
            return 'before'
    return 'after'


def _check_calls(calls: list[Call], position: str, place: str) -> tuple[int, ...]:
    """The shape of the tensor at a place that can hold a block."""
    if not calls:
        raise InsertionError(
            f'{place}: this module does not run when the base is evaluated, '
            'so a block there would not either'
        )
    if len(calls) > 1:
        raise InsertionError(_repeated(place, len(calls)))
    shape = getattr(calls[0], position)
    if shape is None or len(shape) < 2:
        raise InsertionError(_no_tensor(place))
    if shape[1] is None:
        raise InsertionError(
            f'{place}: the second size of this tensor follows the size of '
            'the input, so it is not (B, C, ...), which the blocks take'
        )
    return shape


def _repeated(place: str, times: int | str) -> str:
    return (
        f'{place}: this module runs {times} times per forward, and a '
        'block there would run as often; choose a place that runs once'
    )


def _no_tensor(place: str) -> str:
    verb = 'receives' if place.startswith('before') else 'returns'
    return (
        f'{place}: this module {verb} no single tensor of features, so '
        'there is nothing that a block could work on'
    )


def _is_channels_first(layer: nn.Module) -> bool:
    """Whether a layer is defined on ``(B, C, N)``."""
    return isinstance(getattr(layer, 'conv', layer), nn.modules.conv._ConvNd)


def _own_channels(target: nn.Module, position: str) -> int | None:
    """Channels of a layer that was not seen running, as it says itself."""
    names = 'in_channels' if position == 'before' else 'out_channels', ('num_features')
    found = (getattr(target, name, None) for name in names)
    return next((value for value in found if isinstance(value, int)), None)


def _run_before(child: str, name: str, module: nn.Module, args: tuple) -> tuple:
    place = f'before={name!r}'
    if not args or not isinstance(args[0], Tensor):
        raise InsertionError(_no_tensor(place))
    block = getattr(module, child)
    _count(block, place)
    return block(args[0]), *args[1:]


def _run_after(
    child: str, name: str, module: nn.Module, args: tuple, output: Any
) -> Tensor:
    place = f'after={name!r}'
    if not isinstance(output, Tensor):
        raise InsertionError(_no_tensor(place))
    block = getattr(module, child)
    _count(block, place)
    return block(output)


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


# Calls of modules that were not probed: counted in the first forward -------


def _first_forward(base: nn.Module, names: list[str], *args: Any, **kwargs: Any) -> Any:
    """``forward`` of a base until it has run once."""
    forward = type(base).forward
    if torch.compiler.is_compiling():  # the graph is not to have it
        return forward(base, *args, **kwargs)
    blocks = [base.get_submodule(name) for name in names]
    for block in blocks:
        block._calls = 0
    try:
        output = forward(base, *args, **kwargs)
    finally:
        for block in blocks:
            del block._calls
    del base.forward
    return output


def _count(block: nn.Module, place: str) -> None:
    if torch.compiler.is_compiling() or '_calls' not in vars(block):
        return
    if block._calls:
        raise InsertionError(_repeated(place, 'several'))
    block._calls = 1


# Initial weights -----------------------------------------------------------


def _init_weights(base: nn.Module, names: list[str], *args: Any, **kwargs: Any) -> None:
    """``init_weights`` of a base, after which its blocks are new ones.

    The blocks are out of their hosts meanwhile, since some bases look for
    each of their layers in the pretrained file. A state dict that reaches a
    host still fills them if it holds them.
    """
    if getattr(base, 'is_init', False):
        # mmengine says that this is the second time, and changes nothing.
        type(base).init_weights(base, *args, **kwargs)
        return
    blocks = [base.get_submodule(name) for name in names]
    hosts = defaultdict(dict)
    for name, block in zip(names, blocks):
        host, _, child = name.rpartition('.')
        hosts[base.get_submodule(host)][child] = block
    loaded = set()

    def fill(host: nn.Module, state_dict: dict, prefix: str, *unused: Any) -> None:
        for child, block in hosts[host].items():
            start = f'{prefix}{child}.'
            held = {
                key.removeprefix(start): state_dict.pop(key)
                for key in list(state_dict)
                if key.startswith(start)
            }
            if held:
                load_state_dict(block, held)
                loaded.add(block)

    handles = []
    for host, children in hosts.items():
        handles.append(host._register_load_state_dict_pre_hook(fill, with_module=True))
        for child in children:
            del host._modules[child]
    try:
        type(base).init_weights(base, *args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
        for host, children in hosts.items():
            host._modules.update(children)
    for block in blocks:
        if block in loaded:
            continue
        for method in ('init_weights', 'reset_parameters'):
            if hasattr(block, method):
                getattr(block, method)()
                break
