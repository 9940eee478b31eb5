"""Build a module and insert blocks into it."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import nn

from ..errors import InsertionError
from ..registry import MODELS
from .initial_weights import init_weights
from .insert import attach_block, build_block, count_first_forward
from .places import parse_block
from .probe import probe


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
    insertions = [insertion for cfg in blocks for insertion in parse_block(module, cfg)]
    calls = probe(module, {insertion.target for insertion in insertions}) or {}
    # All are built before the first is attached: a target looks the same to
    # every block that goes to it.
    built = [
        build_block(module, insertion, calls.get(insertion.target))
        for insertion in insertions
    ]
    names = [
        attach_block(module, insertion, block)
        for insertion, block in zip(insertions, built)
    ]
    unseen = [
        name
        for name, insertion in zip(names, insertions)
        if calls.get(insertion.target) is None
    ]
    if unseen:
        # Not hooks: MMSegmentation calls forward() of its heads itself.
        module.forward = partial(count_first_forward, module, unseen)
    if hasattr(module, 'init_weights'):
        # An attribute of the instance, bound by a partial: unlike a closure
        # it follows the module into its copies.
        module.init_weights = partial(init_weights, module, names)
    return module
