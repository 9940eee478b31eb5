"""Find out how a module calls its submodules, without data or computing."""
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.func import functional_call

#: Input sizes after batch and channels, by the rank of the first convolution.
#: They cost nothing; large enough for every stride, long enough for SlowFast.
_SIZES = {nn.Conv1d: (64, ), nn.Conv2d: (224, 224), nn.Conv3d: (32, 224, 224)}
#: A multiple of the frames that video models fold into the batch.
_BATCH = 16


class Call(NamedTuple):
    """One call of a submodule.

    Attributes:
        before (tuple[int, ...], optional): Shape of the first positional
            argument, None if that is not a tensor.
        after (tuple[int, ...], optional): Shape of the output, None if that
            is not a tensor.
    """
    before: tuple[int, ...] | None
    after: tuple[int, ...] | None


def probe(module: nn.Module,
          names: Iterable[str]) -> dict[str, list[Call]] | None:
    """Record the calls of some submodules in one forward of a module.

    The forward runs on meta tensors in evaluation mode: parameters and
    buffers keep their values, and nothing is computed. The input is an image,
    a clip or a sequence, as the first convolution wants it. In a whole model
    the backbone runs alone.

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
    image = _image(root)
    if image is None:
        return None
    calls = {name: [] for name in names if name.startswith(prefix)}
    handles = [
        module.get_submodule(name).register_forward_hook(
            partial(_record, records)) for name, records in calls.items()
    ]
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
            functional_call(root, state, (image, ))
    except Exception as error:  # a forward is free to fail in any way
        print_log(
            f'{type(root).__name__} does not run on shapes alone: {error}',
            logger='current',
            level=10)
        return None
    finally:
        for m, training in modes:
            m.training = training
        for handle in handles:
            handle.remove()
    return calls


def _image(root: nn.Module) -> Tensor | None:
    for m in root.modules():
        for conv, size in _SIZES.items():
            if isinstance(m, conv):
                return torch.empty(
                    _BATCH, m.in_channels, *size, device='meta')
    return None


def _record(records: list[Call], module: nn.Module, args: tuple,
            output: object) -> None:
    before, after = (
        tuple(value.shape) if isinstance(value, Tensor) else None
        for value in (args[0] if args else None, output))
    records.append(Call(before, after))
