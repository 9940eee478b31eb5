"""Find out how a module calls its submodules, without data or computing."""

import logging
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.func import functional_call

_RANKS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
#: A multiple of the frames that video models fold into the batch.
_BATCH = 16
#: Frames, height and width of the inputs. They cost nothing; large enough for
#: every stride, long enough for SlowFast. The second tells the sizes that
#: follow the input from the channels, which do not.
_SIZES = ((32, 224, 224), (64, 256, 320))


class Call(NamedTuple):
    """One call of a submodule.

    Attributes:
        before (tuple[int | None, ...], optional): Shape of the first
            positional argument, None if that is not a tensor. A size that
            depends on the input's is None.
        after (tuple[int | None, ...], optional): Same of the output.
    """

    before: tuple[int | None, ...] | None
    after: tuple[int | None, ...] | None


def probe(module: nn.Module, names: Iterable[str]) -> dict[str, list[Call]] | None:
    """Record the calls of some submodules in one forward of a module.

    The forward runs on meta tensors in evaluation mode: parameters and
    buffers keep their values, and nothing is computed. The input is an image,
    a clip or a sequence, whichever the module runs on. In a whole model the
    backbone runs alone.

    Args:
        module (nn.Module): A backbone, or a model with a ``backbone``.
        names (Iterable[str]): Names of submodules.

    Returns:
        dict[str, list[Call]], optional: The calls of every submodule that
        lies inside of what ran, or None if the module does not run so
        (other inputs, operators without a meta implementation).
    """
    prefix = 'backbone.' if hasattr(module, 'backbone') else ''
    root = module.backbone if prefix else module
    conv = next((m for m in root.modules() if isinstance(m, tuple(_RANKS))), None)
    if conv is None:
        return None
    targets = {
        name: module.get_submodule(name)
        for name in names
        if f'{name}.'.startswith(prefix)
    }
    # Frame-wise 2D video models take clips; a first convolution behind a
    # rearrangement of the input has more channels than that.
    rank = next(r for c, r in _RANKS.items() if isinstance(conv, c))
    for channels in dict.fromkeys((conv.in_channels, 3)):
        for ndim in dict.fromkeys((rank, 3)):
            shapes = [(_BATCH, channels, *size[-ndim:]) for size in _SIZES]
            first = _run(root, conv, targets, shapes[0])
            if first is None:
                continue
            second = _run(root, conv, targets, shapes[1]) or first
            return {name: _merge(first[name], second[name]) for name in targets}
    return None


def _run(
    root: nn.Module,
    conv: nn.Module,
    targets: dict[str, nn.Module],
    shape: tuple[int, ...],
) -> dict[str, list[Call]] | None:
    """The calls of the targets for one shape of input, None if it fails."""
    calls = {name: [] for name in targets}
    handles = [
        target.register_forward_hook(partial(_record, calls[name]))
        for name, target in targets.items()
    ]
    handles.append(conv.register_forward_pre_hook(_check_rank))
    state = {
        name: tensor.to('meta')
        for tensors in (root.named_parameters(), root.named_buffers())
        for name, tensor in tensors
    }
    modes = [(m, m.training) for m in root.modules()]
    try:
        # Not root.eval(): a train() of the base may do more than set flags.
        for m, _ in modes:
            m.training = False
        with torch.no_grad():
            functional_call(root, state, (torch.empty(shape, device='meta'),))
    except Exception as error:  # a forward is free to fail in any way
        print_log(
            f'{type(root).__name__} does not run on the shape {shape} alone: {error}',
            logger='current',
            level=logging.DEBUG,
        )
        return None
    finally:
        for m, training in modes:
            m.training = training
        for handle in handles:
            handle.remove()
    return calls


def _check_rank(conv: nn.Module, args: tuple) -> None:
    # A head that wants a list of levels takes the batch for one.
    if args[0].dim() != conv.weight.dim():
        raise ValueError('the module iterates over the batch')


def _record(
    records: list[Call], module: nn.Module, args: tuple, output: object
) -> None:
    before, after = (
        tuple(value.shape) if isinstance(value, Tensor) else None
        for value in (args[0] if args else None, output)
    )
    records.append(Call(before, after))


def _merge(first: list[Call], second: list[Call]) -> list[Call]:
    """Calls whose sizes are None where the two runs differ."""
    if len(first) != len(second):
        return first
    return [
        Call(
            *(
                tuple(m if m == n else None for m, n in zip(a, b))
                if a and b and len(a) == len(b)
                else a
                for a, b in zip(*calls)
            )
        )
        for calls in zip(first, second)
    ]
