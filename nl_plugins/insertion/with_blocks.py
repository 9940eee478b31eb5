"""Build a module and insert blocks into it."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import nn

from ..errors import InsertionError
from ..registry import MODELS
from .initial_weights import init_weights
from .insert import attach_block, build_block, run_first_forward
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

    ``init_weights`` of the base leaves the inserted blocks with their own
    initial parameters, or with those of a checkpoint that the base loads and
    that holds them.

    Args:
        base (str | type): Type of the module to build, resolved in the
            current scope: a backbone, neck, head or a whole model.
        blocks (Sequence[dict]): Configs of the blocks. ``type`` is the name
            of any registered module or a class. ``after`` or ``before`` is
            the place: a module path relative to the base, in which integers
            may be negative, or a list of such paths, each of which gets a
            separate block. ``in_channels`` is inferred if it is missing.
            ``layout='BCN'`` states that the tensor is ``(B, C, N)``; 1d
            blocks need it where that cannot be inferred. All other keys are
            arguments of the block.
        kwargs: Arguments of ``base``.

    Returns:
        nn.Module: The base itself, with its blocks.

    Raises:
        InsertionError: If a place or a type does not exist, the channels are
            unknown or do not match, or the target cannot hold a block (it
            runs more than once per forward, or its tensor is none). A
            ``ValueError``. For modules that do not run on an image alone,
            such as heads, the first forward raises it.
        ArgumentError: If a block does not take an argument. A
            ``TypeError``.
    """
    if not isinstance(blocks, (list, tuple)):
        raise InsertionError(f'blocks must be a list of dicts, but got {blocks!r}')
    module = MMENGINE_MODELS.build(dict(type=base, **kwargs))
    insertions = [insertion for cfg in blocks for insertion in parse_block(module, cfg)]
    calls = probe(module, {insertion.target for insertion in insertions}) or {}
    # All blocks are built before the first one is attached, which changes its
    # target.
    built = [
        build_block(module, insertion, calls.get(insertion.target))
        for insertion in insertions
    ]
    names = [
        attach_block(module, insertion, block)
        for insertion, block in zip(insertions, built)
    ]
    unprobed = [
        name
        for name, insertion in zip(names, insertions)
        if calls.get(insertion.target) is None
    ]
    # Attributes bound by a partial, which deepcopy and pickle bind to the copy.
    if unprobed:
        # MMSegmentation calls forward() of its heads directly, without hooks.
        module.forward = partial(run_first_forward, module, unprobed)
    if hasattr(module, 'init_weights'):
        module.init_weights = partial(init_weights, module, names)
    return module
