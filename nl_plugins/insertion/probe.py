"""Find how a module calls its submodules, with tensors that have no data."""

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from ..errors import InsertionError, first_line

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
#: Video models fold frames into the batch: a multiple of their numbers.
_BATCH = 16
#: Frames, height and width of the two inputs: large enough for every stride
#: and for SlowFast's clips, and free of cost. Sizes that differ between the
#: two depend on the input; channels do not.
_SIZES = ((32, 224, 224), (64, 256, 320))


#: Shape of a tensor, in which a size is None if it depends on the size of the
#: input; shapes of several tensors by their index or key; None for the rest.
Shape = tuple[int | None, ...] | dict | None


class Call(NamedTuple):
    """One call of a submodule.

    Attributes:
        before (Shape): Of the positional arguments.
        after (Shape): Of the output.
    """

    before: Shape
    after: Shape


def probe(
    module: nn.Module, names: Iterable[str], example: Any = None
) -> dict[str, list[Call]] | None:
    """List the calls of some submodules in one forward of a module.

    The forward runs on meta tensors in evaluation mode: nothing is computed,
    and parameters and buffers keep their values. The input is an image, a
    clip or a sequence, depending on the first convolution. Of a whole model
    only the backbone runs, unless there is an example.

    Args:
        module (nn.Module): A backbone, or a model with a ``backbone``.
        names (Iterable[str]): Names of submodules.
        example (Tensor | tuple | dict, optional): Input of the module: one
            argument, positional arguments, or keyword arguments. Defaults to
            None, sizes that fit most backbones.

    Returns:
        dict[str, list[Call]], optional: The calls of every submodule inside
        of the module that ran. None if it does not run on such an input, or
        has operators without a meta implementation.
    """
    if example is not None:
        return _run_example(module, names, example)
    prefix = 'backbone.' if hasattr(module, 'backbone') else ''
    root = module.get_submodule('backbone') if prefix else module
    conv = next((m for m in root.modules() if isinstance(m, _CONVOLUTIONS)), None)
    if conv is None:
        return None
    targets = {
        name: module.get_submodule(name)
        for name in names
        if f'{name}.'.startswith(prefix)
    }
    # 3 dimensions: frame-wise 2D models take clips. 3 channels: the first
    # convolution may follow a rearrangement of the input, which adds channels.
    for channels in dict.fromkeys((conv.in_channels, 3)):
        for ndim in dict.fromkeys((conv.weight.dim() - 2, 3)):
            shapes = [(_BATCH, channels, *size[-ndim:]) for size in _SIZES]
            first = _run_shape(root, conv, targets, shapes[0])
            if first is None:
                continue
            second = _run_shape(root, conv, targets, shapes[1]) or first
            return {name: _merge(first[name], second[name]) for name in targets}
    return None


def _run_example(
    module: nn.Module, names: Iterable[str], example: Any
) -> dict[str, list[Call]]:
    """The calls in a forward of an example, on meta tensors if they suffice."""
    targets = {name: module.get_submodule(name) for name in names}
    args: tuple = (example,)
    kwargs: dict[str, Any] = {}
    if isinstance(example, Mapping):
        args, kwargs = (), dict(example)
    elif isinstance(example, (tuple, list)):
        args = tuple(example)
    meta_args, meta_kwargs = tree_map(
        lambda t: t.to('meta') if isinstance(t, Tensor) else t, (args, kwargs)
    )
    try:
        return _run(module, targets, meta_args, meta_kwargs, _meta_state(module))
    except Exception:  # operators without a meta implementation
        pass
    try:
        return _run(module, targets, args, kwargs)
    except Exception as error:  # a forward may raise anything
        raise InsertionError(
            f'{type(module).__name__} does not run on example_input: '
            f'{first_line(error)}'
        ) from error


def _run_shape(
    root: nn.Module,
    conv: nn.Module,
    targets: dict[str, nn.Module],
    shape: tuple[int, ...],
) -> dict[str, list[Call]] | None:
    """The calls of the targets for one input shape, None if forward fails."""
    args = (torch.empty(shape, device='meta'),)
    handle = conv.register_forward_pre_hook(_check_rank)
    try:
        return _run(root, targets, args, {}, _meta_state(root))
    except Exception as error:  # a forward may raise anything
        print_log(
            f'{type(root).__name__} does not run on the shape {shape} alone: {error}',
            logger='current',
            level=logging.DEBUG,
        )
        return None
    finally:
        handle.remove()


def _meta_state(root: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers without data."""
    return {
        name: tensor.to('meta')
        for tensors in (root.named_parameters(), root.named_buffers())
        for name, tensor in tensors
    }


def _run(
    root: nn.Module,
    targets: dict[str, nn.Module],
    args: tuple,
    kwargs: dict,
    state: dict[str, Tensor] | None = None,
) -> dict[str, list[Call]]:
    """The calls of the targets in one forward, in evaluation mode."""
    calls: dict[str, list[Call]] = {name: [] for name in targets}
    handles = [
        target.register_forward_hook(partial(_record, calls[name]))
        for name, target in targets.items()
    ]
    modes = [(m, m.training) for m in root.modules()]
    try:
        # root.eval() calls train() of the base, which may do more than set
        # flags.
        for m, _ in modes:
            m.training = False
        with torch.no_grad(), _WithoutNorms():
            functional_call(root, state or {}, args, kwargs)
    finally:
        for m, training in modes:
            m.training = training
        for handle in handles:
            handle.remove()
    return calls


class _WithoutNorms(TorchFunctionMode):
    """Skips batch norms, which keep the shape: without data each takes 5 ms."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return args[0] if func is F.batch_norm else func(*args, **(kwargs or {}))


def _check_rank(conv: nn.modules.conv._ConvNd, args: tuple) -> None:
    # A head that takes a list of levels would iterate over the batch.
    if args[0].dim() != conv.weight.dim():
        raise ValueError('the module iterates over the batch')


def _record(
    records: list[Call], module: nn.Module, args: tuple, output: object
) -> None:
    records.append(Call(_shapes(args), _shapes(output)))


def _shapes(value: Any) -> Shape:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, (tuple, list)):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        return {key: _shapes(item) for key, item in value.items()}
    return None


def _merge(first: list[Call], second: list[Call]) -> list[Call]:
    """Calls with None for sizes in which the two runs differ."""
    if len(first) != len(second):
        return first
    return [Call(*map(_merge_shapes, one, other)) for one, other in zip(first, second)]


def _merge_shapes(first: Shape, second: Shape) -> Shape:
    if isinstance(first, dict) and isinstance(second, dict):
        return {key: _merge_shapes(first[key], second.get(key)) for key in first}
    if isinstance(first, tuple) and isinstance(second, tuple):
        if len(first) == len(second):
            return tuple(m if m == n else None for m, n in zip(first, second))
    return first
