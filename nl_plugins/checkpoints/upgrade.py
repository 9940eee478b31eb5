"""Replace the non-local blocks in a built upstream model by ours."""

import logging
from typing import Any

import torch
from mmcv import cnn
from mmcv.cnn.bricks.non_local import _NonLocalNd
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from .. import blocks
from ..registry import HOOKS


def upgrade(model: nn.Module) -> int:
    """Replace upstream's non-local blocks by ours, in place.

    mmcv's blocks (which MMDetection, MMSegmentation and MMAction2 use) and
    MMSegmentation's disentangled block become blocks of this package. The
    modules, parameters, keys and results stay the same, without the attention
    map of all pairs. References, hooks and optimizers of the blocks stay
    valid. Subclasses of upstream's blocks, and MMAction2's ``NonLocalLayer``
    of its LFB head, are not replaced.

    MMSegmentation's disentangled block with ``mode='gaussian'`` subtracts the
    mean from its own input, which no block of this package does. It is not
    replaced, with a warning that names it.

    Args:
        model (nn.Module): A model, wrapped or not, or a block.

    Returns:
        int: Number of replaced blocks.
    """
    count = 0
    for module in model.modules():
        block_type = _replacement(module)
        if block_type is not None:
            _upgrade_block(module, block_type)
            count += 1
    print_log(
        f'upgraded {count} non-local {"block" if count == 1 else "blocks"}',
        logger='current',
    )
    for name, module in model.named_modules():
        if _is_mmseg_disentangled(module) and module.mode == 'gaussian':
            print_log(
                f'{name or type(module).__name__} is not upgraded: '
                "MMSegmentation's disentangled block with mode='gaussian' "
                'ignores its temperature and subtracts the mean from its own '
                'input. nl_plugins.DisentangledNonLocal2d follows the formula '
                'and would give other results.',
                logger='current',
                level=logging.WARNING,
            )
    return count


@HOOKS.register_module()
class UpgradeNonLocalHook(Hook):
    """Calls :func:`upgrade` with the model before a run.

    .. code-block:: python

        custom_hooks = [dict(type='nl_plugins.UpgradeNonLocalHook')]
    """

    def before_run(self, runner: Runner) -> None:
        upgrade(runner.model)


def _replacement(module: Any) -> type[blocks.NonLocalBlock] | None:
    """The class of this package that computes the same as an upstream block."""
    if not isinstance(module, _NonLocalNd):
        return None
    for ndim in 1, 2, 3:
        if type(module) is getattr(cnn, f'NonLocal{ndim}d'):
            return getattr(blocks, f'NonLocal{ndim}d')
    if _is_mmseg_disentangled(module) and module.mode != 'gaussian':
        return blocks.DisentangledNonLocal2d
    return None


def _is_mmseg_disentangled(module: nn.Module) -> bool:
    return type(module).__name__ == 'DisentangledNonLocal2d' and type(
        module
    ).__module__.startswith('mmseg.')


def _upgrade_block(block: Any, block_type: type[blocks.NonLocalBlock]) -> None:
    """Turn an upstream block into one of this package, in place."""
    kwargs: dict[str, Any] = {}
    if block_type is blocks.DisentangledNonLocal2d:
        # mmseg's other modes have no temperature.
        kwargs['temperature'] = (
            block.temperature if block.mode == 'embedded_gaussian' else 1.0
        )
    with torch.device('meta'):  # only its attributes are used
        ours = block_type(
            block.in_channels,
            reduction=block.reduction,
            use_scale=block.use_scale,
            mode=block.mode,
            sub_sample=block.sub_sample,
            **kwargs,
        )
    # Others may have references to this module, so its class is changed.
    block.__class__ = block_type
    for name, value in vars(ours).items():
        if not name.startswith('_') and name != 'training':
            setattr(block, name, value)
    if block.sub_sample:
        block.pool = ours.pool
