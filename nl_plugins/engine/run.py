"""Train and test with any of the toolboxes.

A run is one of mmengine's runners. This module adds the options of the
toolboxes' own tools, the same for all of them, and checks early what a run
needs.
"""

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn

from ..checkpoints.load import (
    CheckpointFitHook,
    check_checkpoint_exists,
    check_latest_checkpoint_exists,
)
from ..compat.mmcv import replace_mmsyncbn
from ..errors import OptionError
from ..toolboxes import toolbox_of
from .checks import OptimizedBlocksHook, check_datasets


def train(
    cfg: Config,
    resume: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
) -> nn.Module:
    """Train the model of a config.

    Args:
        cfg (Config): Config from :func:`nl_plugins.load_config`.
        resume (str, optional): Checkpoint to resume from, or ``'auto'`` for
            the latest one in the work directory, if there is one. Defaults
            to None.
        amp (bool): Whether to train with automatic mixed precision. Defaults
            to False.
        auto_scale_lr (bool): Whether to scale the learning rate by the ratio
            of the batch size to ``auto_scale_lr.base_batch_size``. Defaults
            to False.

    Returns:
        nn.Module: The trained model.

    Raises:
        DatasetNotFoundError: Data for training or validation is missing.
        CheckpointNotFoundError: There is no checkpoint ``resume``.
        CheckpointMismatchError: The checkpoint to resume from does not fit.
        OptionError: ``amp`` or ``auto_scale_lr`` do not go with the config,
            or the optimizer lacks a parameter of a block.
    """
    if cfg.get('train_dataloader') is None:
        raise OptionError(
            f'{cfg.filename} has no train_dataloader: there is nothing to train'
        )
    if amp:
        _use_amp(cfg)
    if auto_scale_lr:
        _use_auto_scale_lr(cfg)
    check_datasets(cfg, 'train', 'val')
    if resume == 'auto':
        check_latest_checkpoint_exists(cfg.work_dir)
        cfg.resume, cfg.load_from = True, None
    elif resume is not None:
        check_checkpoint_exists(resume)
        cfg.resume, cfg.load_from = True, resume
    runner = _build_runner(cfg)
    runner.register_hook(OptimizedBlocksHook())
    if runner._resume:
        runner.register_hook(CheckpointFitHook())
    return runner.train()


def test(
    cfg: Config,
    checkpoint: str,
    out: str | None = None,
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2,
    tta: bool = False,
    upgrade: bool = False,
) -> dict:
    """Test a model with the metrics of its config.

    Args:
        cfg (Config): Config from :func:`nl_plugins.load_config`.
        checkpoint (str): Path or URL of a checkpoint of this model.
        out (str, optional): Where to keep the predictions: a pickle file or,
            for segmentation, a folder of label maps. Defaults to None.
        show (bool): Whether to show every prediction in a window. Defaults
            to False.
        show_dir (str, optional): Folder to paint the predictions into.
            Defaults to None.
        wait_time (float): Seconds that ``show`` shows a picture for.
            Defaults to 2.
        tta (bool): Whether to use test time augmentation. Defaults to False.
        upgrade (bool): Whether to replace upstream's non-local blocks by
            ours, with :class:`nl_plugins.UpgradeNonLocalHook`. Defaults to
            False.

    Returns:
        dict: The metrics.

    Raises:
        DatasetNotFoundError: Data for the test is missing.
        CheckpointNotFoundError: There is no such checkpoint.
        CheckpointMismatchError: The checkpoint belongs to another model.
        OptionError: An option does not go with the config.
    """
    if cfg.get('test_dataloader') is None:
        raise OptionError(
            f'{cfg.filename} has no test_dataloader: there is nothing to test'
        )
    toolbox = toolbox_of(cfg)
    if show or show_dir is not None:
        toolbox.use_visualization(cfg, show, show_dir, wait_time)
    if tta:
        toolbox.use_tta(cfg)
    if out is not None:
        toolbox.check_out(out)
    if upgrade:
        hooks = cfg.get('custom_hooks') or []
        cfg.custom_hooks = [*hooks, dict(type='nl_plugins.UpgradeNonLocalHook')]
    check_datasets(cfg, 'test')
    check_checkpoint_exists(checkpoint)
    cfg.load_from, cfg.resume = checkpoint, False
    runner = _build_runner(cfg)
    runner.register_hook(CheckpointFitHook())
    if out is not None:
        toolbox.keep_predictions(runner, out)
    return runner.test()


def _build_runner(cfg: Config) -> Runner:
    """Build the runner of a config."""
    if cfg.launcher == 'none' or get_device() == 'cpu':
        replace_mmsyncbn(cfg.model)
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)


# Options ------------------------------------------------------------------


def _use_amp(cfg: Config) -> None:
    """Switch automatic mixed precision on."""
    wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if wrapper in ('AmpOptimWrapper', AmpOptimWrapper):
        print_log('The config trains with mixed precision already.', 'current')
        return
    if wrapper not in ('OptimWrapper', OptimWrapper):
        raise OptionError(
            "--amp goes with optim_wrapper.type='OptimWrapper' only, but the "
            f'config has {wrapper!r}'
        )
    if get_device() == 'cpu':
        raise OptionError('--amp needs an accelerator, and there is none')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def _use_auto_scale_lr(cfg: Config) -> None:
    """Switch the scaling of the learning rate on."""
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise OptionError(
            '--auto-scale-lr needs the batch size that the learning rate is '
            'meant for, and the config does not say it: --cfg-options '
            'auto_scale_lr.base_batch_size=N'
        )
    cfg.auto_scale_lr.enable = True
