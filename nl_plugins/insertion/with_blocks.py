"""Build a module and insert blocks into it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import nn

from ..errors import ArgumentError, InsertionError, did_you_mean
from ..registry import MODELS, find_type
from .initial_weights import init_weights
from .insert import (
    argument_names,
    attach_block,
    blocks_of,
    build_block,
    run_first_forward,
    unknown_argument,
)
from .places import parse_block
from .probe import probe


@MODELS.register_module()
def WithBlocks(
    base: str | type | None = None,
    blocks: Sequence[dict] | Mapping[str, dict | None] | None = None,
    freeze_base: bool = False,
    **kwargs: Any,
) -> nn.Module:
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
        blocks (Sequence[dict] | Mapping[str, dict | None]): Configs of the
            blocks, or a dict of them with names of your choice, of which an
            inheriting config changes one key, or removes one with None.

            ``type`` is the name of any registered module or a class.
            ``after`` or ``before`` is the place: a module path relative to
            the base, in which integers may be negative, or a list of such
            paths, each of which gets a separate block. ``in_channels`` is
            inferred if it is missing. All other keys are arguments of the
            block, except for

            - ``layout``: the order of the tensor's dimensions; ``'BNC'``
              (1d) and ``'BHWC'`` (2d) for transformers. 1d blocks need it
              where it cannot be inferred.
            - ``item``: the index or key of the tensor where the place
              receives (``before``, 0 by default) or returns (``after``)
              several values.
            - ``per_call=True``: one block for a place that runs several
              times per forward, such as a head that levels share; with
              ``in_channels`` only in the calls with these channels, such
              as the last ReLU of a residual block.
            - ``frozen=False``: trains the block in a frozen stage; True
              freezes it anywhere. By default it is frozen with its stage.
        freeze_base (bool): Whether only blocks are trained, these and those
            that parts of the base have: all other parameters get no
            gradient, and their norms keep their statistics. Defaults to
            False.
        kwargs: Arguments of ``base``.

    Returns:
        nn.Module: The base itself, with its blocks.

    Raises:
        InsertionError: If a place or a type does not exist, the channels are
            unknown or do not match, the target cannot hold a block (it runs
            more than once per forward, or its tensor is none), or
            ``freeze_base`` leaves nothing to train. A ``ValueError``. For
            modules that do not run on an image alone, such as heads, the
            first forward raises it.
        ArgumentError: If a block or the base does not take an argument, or
            ``base`` or ``blocks`` is missing. A ``TypeError``.
    """
    if base is None or blocks is None:
        missing = 'base' if base is None else 'blocks'
        raise ArgumentError(
            f'WithBlocks needs {missing!r}, but got {", ".join(kwargs) or "nothing"}'
            + did_you_mean([missing], *kwargs)
        )
    try:
        module = MMENGINE_MODELS.build(dict(type=base, **kwargs))
    except TypeError as error:
        unknown = unknown_argument(error)
        if unknown not in kwargs:
            raise
        known = [*argument_names(find_type(base)), 'freeze_base']
        raise ArgumentError(f'{error}{did_you_mean(known, unknown)}') from error
    insert(module, blocks, freeze_base=freeze_base)
    return module


def insert(
    model: nn.Module,
    blocks: Sequence[dict] | Mapping[str, dict | None],
    example_input: Any = None,
    freeze_base: bool = False,
) -> tuple[nn.Module, list[str]]:
    """Insert blocks into a model that is built.

    .. code-block:: python

        model, names = nl_plugins.insert(
            torchvision.models.resnet50(),
            [dict(type=nl_plugins.NonLocal2d, before='layer3.-1')])

    Args:
        model (nn.Module): Any module, changed in place: of a toolbox,
            torchvision, timm, or your own. An ``init_weights`` that it has
            leaves the blocks with their own initial parameters.
        blocks (Sequence[dict] | Mapping[str, dict | None]): As in
            :func:`WithBlocks`.
        example_input (Tensor | tuple | dict, optional): Input of the model,
            one argument, positional arguments or keyword arguments, which
            shows the shapes at the places. Nothing is computed with it where
            its operators have a meta implementation. Defaults to None, an
            image, clip or sequence for the first convolution.
        freeze_base (bool): As in :func:`WithBlocks`. Defaults to False.

    Returns:
        tuple[nn.Module, list[str]]: The model, and the full names of the
        inserted blocks.

    Raises:
        InsertionError: As :func:`WithBlocks`, or if the model does not run on
            ``example_input``.
        ArgumentError: As :func:`WithBlocks`.
    """
    if isinstance(blocks, Mapping) and 'type' not in blocks:
        blocks = [cfg for cfg in blocks.values() if cfg is not None]
    if not isinstance(blocks, (list, tuple)):
        raise InsertionError(
            f'blocks must be a list or a dict of dicts, but got {blocks!r}'
        )
    insertions = [insertion for cfg in blocks for insertion in parse_block(model, cfg)]
    targets = {insertion.target for insertion in insertions}
    calls = probe(model, targets, example_input) if targets else None
    calls = calls or {}
    # All blocks are built before the first one is attached, which changes its
    # target.
    built = [
        build_block(model, insertion, calls.get(insertion.target))
        for insertion in insertions
    ]
    names = [
        attach_block(model, insertion, block)
        for insertion, block in zip(insertions, built)
    ]
    unprobed = [
        name
        for name, insertion in zip(names, insertions)
        if calls.get(insertion.target) is None and not insertion.per_call
    ]
    trained = [
        name for name, insertion in zip(names, insertions) if insertion.frozen is False
    ]
    if unprobed:
        # MMSegmentation calls forward() of its heads directly, without hooks.
        _wrap(model, 'forward', run_first_forward, unprobed)
    if names and hasattr(model, 'init_weights'):
        _wrap(model, 'init_weights', init_weights, names)
    if trained:
        _wrap(model, 'train', train, trained)
    if freeze_base:
        _freeze_all_but_blocks(model)
    return model, names


def _freeze_all_but_blocks(model: nn.Module) -> None:
    """Freeze what is no block, now and in every ``train`` of the model."""
    trained = {
        name: block
        for name, block in blocks_of(model).items()
        if any(p.requires_grad for p in block.parameters())
    }
    if not trained:
        raise InsertionError(
            f'freeze_base=True: the {type(model).__name__} has no block that '
            'could be trained'
        )
    model.requires_grad_(False)
    for block in trained.values():
        block.requires_grad_(True)
    _wrap(model, 'train', train_blocks_only, list(trained))


def train(model: nn.Module, names: list[str], mode: bool = True) -> nn.Module:
    """Call ``train`` of a model, which freezes its stages but not these blocks."""
    type(model).train(model, mode)
    return _train_blocks(model, names, mode)


def train_blocks_only(
    model: nn.Module, names: list[str], mode: bool = True
) -> nn.Module:
    """Call ``train`` of a model, whose norms keep their statistics."""
    type(model).train(model, mode)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()
    return _train_blocks(model, names, mode)


def _train_blocks(model: nn.Module, names: list[str], mode: bool) -> nn.Module:
    """Undo for blocks what a model has frozen with the stages they are in."""
    for name in names:
        model.get_submodule(name).train(mode).requires_grad_(True)
    return model


def _wrap(model: nn.Module, method: str, function: Callable, names: list[str]) -> None:
    """Let a function with names of blocks run in place of a method.

    It is an attribute, bound by a partial, which deepcopy and pickle bind to
    the copy. Names of an earlier insertion stay.
    """
    earlier = vars(model).get(method)
    if isinstance(earlier, partial) and earlier.func is function:
        names = [*earlier.args[1], *names]
    setattr(model, method, partial(function, model, names))
