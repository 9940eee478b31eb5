"""Let the non-local blocks of a built upstream model compute as ours."""

import logging

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
    MMSegmentation's disentangled block become blocks of this package: same
    modules, parameters, keys and results, without the map of all pairs.
    References, hooks and optimizers that know them stay valid. Classes that
    others derived from them, and MMAction2's ``NonLocalLayer`` of its LFB
    head, are left alone.

    MMSegmentation's disentangled block with ``mode='gaussian'`` subtracts the
    mean from its own input, so no block of ours gives its results. It is left
    alone, with a warning that names it.

    Args:
        model (nn.Module): A model, wrapped or not, or a block.

    Returns:
        int: How many blocks were replaced.
    """
    found = [module for module in model.modules() if _replacement(module)]
    for block in found:
        _upgrade_block(block)
    print_log(
        f'upgraded {len(found)} non-local {"block" if len(found) == 1 else "blocks"}',
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
    return len(found)


@HOOKS.register_module()
class UpgradeNonLocalHook(Hook):
    """Calls :func:`upgrade` on the model before a run.

    .. code-block:: python

        custom_hooks = [dict(type='nl_plugins.UpgradeNonLocalHook')]
    """

    def before_run(self, runner: Runner) -> None:
        upgrade(runner.model)


def _replacement(module: nn.Module) -> type | None:
    """The block of ours that does what a block of upstream's does."""
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


def _upgrade_block(block: nn.Module) -> None:
    block_type = _replacement(block)
    kwargs = {}
    if block_type is blocks.DisentangledNonLocal2d:
        # mmseg has a temperature in the embedded form alone.
        kwargs['temperature'] = (
            block.temperature if block.mode == 'embedded_gaussian' else 1.0
        )
    with torch.device('meta'):  # for its attributes alone
        ours = block_type(
            block.in_channels,
            reduction=block.reduction,
            use_scale=block.use_scale,
            mode=block.mode,
            sub_sample=block.sub_sample,
            **kwargs,
        )
    # Not a new module: others may hold this one.
    block.__class__ = block_type
    for name, value in vars(ours).items():
        if not name.startswith('_') and name != 'training':
            setattr(block, name, value)
    if block.sub_sample:
        block.pool = ours.pool
