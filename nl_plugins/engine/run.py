"""Train and test with mmengine's runner.

The functions have the options of the toolboxes' own tools, for all toolboxes
alike, and check what a run needs before it starts.
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
    LoadFromHook,
    check_checkpoint_exists,
    check_latest_checkpoint_exists,
    check_start_exists,
)
from ..compat.mmcv import replace_mmsyncbn
from ..errors import OptionError
from ..toolboxes import installed_versions, toolbox_of
from .block_training import BlockTrainingHook
from .checks import check_datasets, check_loops
from .mistakes import name_mistakes
from .start import Start


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
            the latest one in the work directory; without one the training
            starts as without ``resume``. Defaults to None.
        amp (bool): Train with automatic mixed precision. Defaults to False.
        auto_scale_lr (bool): Scale the learning rate by the ratio of the
            batch size to ``auto_scale_lr.base_batch_size``. Defaults
            to False.

    Returns:
        nn.Module: The trained model.

    Raises:
        DatasetNotFoundError: If data for training or validation is missing.
        CheckpointNotFoundError: If there is no checkpoint ``resume``, or none
            that the config's ``load_from`` names.
        CheckpointMismatchError: If the checkpoint to resume from is that of
            another model, or holds no training.
        OptionError: If the config does not support ``amp`` or
            ``auto_scale_lr``, or the optimizer lacks a parameter of a block.
    """
    if cfg.get('train_dataloader') is None:
        raise OptionError(
            f'{cfg.filename} has no train_dataloader: there is nothing to train'
        )
    if amp:
        _use_amp(cfg)
    if auto_scale_lr:
        _use_auto_scale_lr(cfg)
    check_loops(cfg, 'train', 'val')
    check_datasets(cfg, 'train', 'val')
    if resume == 'auto' and check_latest_checkpoint_exists(cfg.work_dir) is None:
        resume = None  # the start is that of the config
    if resume == 'auto':
        cfg.resume, cfg.load_from = True, None
    elif resume is not None:
        check_checkpoint_exists(resume)
        cfg.resume, cfg.load_from = True, resume
    elif cfg.get('load_from'):
        check_start_exists(cfg.load_from)
    with Start(cfg) as start, name_mistakes(cfg):
        runner = _build_runner(cfg)
        print_log(f'Versions: {installed_versions()}', logger='current')
        runner.register_hook(start)
        runner.register_hook(BlockTrainingHook())
        if runner._resume:
            runner.register_hook(CheckpointFitHook())
        elif runner._load_from:
            runner.register_hook(LoadFromHook())
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
        out (str, optional): Where to write the predictions: a pickle file or,
            for segmentation, a folder of label maps. Defaults to None.
        show (bool): Show every prediction in a window. Defaults to False.
        show_dir (str, optional): Folder to write plots of the predictions
            into. Defaults to None.
        wait_time (float): Seconds for which ``show`` shows a plot. Defaults
            to 2.
        tta (bool): Use test time augmentation. Defaults to False.
        upgrade (bool): Replace upstream's non-local blocks by ours, with
            :class:`nl_plugins.UpgradeNonLocalHook`. Defaults to False.

    Returns:
        dict: The metrics.

    Raises:
        DatasetNotFoundError: If data for the test is missing.
        CheckpointNotFoundError: If there is no such checkpoint.
        CheckpointMismatchError: If the checkpoint is that of another model.
        OptionError: If the config does not support an option.
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
        toolbox.check_output_path(out)
    if upgrade:
        hooks = cfg.get('custom_hooks') or []
        cfg.custom_hooks = [*hooks, dict(type='nl_plugins.UpgradeNonLocalHook')]
    check_loops(cfg, 'test')
    check_datasets(cfg, 'test')
    check_checkpoint_exists(checkpoint)
    cfg.load_from, cfg.resume = checkpoint, False
    with Start(cfg) as start, name_mistakes(cfg):
        runner = _build_runner(cfg)
        runner.register_hook(start)
        runner.register_hook(CheckpointFitHook())
        if out is not None:
            toolbox.write_predictions(runner, out)
        return runner.test()


def _build_runner(cfg: Config) -> Runner:
    """Build the runner of a config, without ``MMSyncBN`` where it fails."""
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
    """Switch automatic scaling of the learning rate on."""
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise OptionError(
            '--auto-scale-lr needs the batch size that the learning rate is '
            'meant for, and the config does not say it: --cfg-options '
            'auto_scale_lr.base_batch_size=N'
        )
    cfg.auto_scale_lr.enable = True
