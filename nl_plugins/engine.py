"""Train and test with any of the toolboxes.

A run is one of mmengine's runners, built from a config of MMDetection,
MMSegmentation or MMAction2. Around it this module adds the options of the
toolboxes' own tools, the same for all three, and an early, clear word on what
is wrong.
"""
import copy
import os

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import METRICS, RUNNERS
from mmengine.runner import Runner
from mmengine.utils import mkdir_or_exist
from torch import nn

from .checks import (
    CheckpointFitHook,
    OptimizedBlocksHook,
    check_checkpoint,
    check_datasets,
    check_latest_checkpoint,
)
from .compat import replace_mmsyncbn
from .errors import OptionError
from .loading import toolbox


def train(cfg: Config,
          resume: str | None = None,
          amp: bool = False,
          auto_scale_lr: bool = False) -> nn.Module:
    """Train the model of a config.

    Args:
        cfg (Config): Config from :func:`nl_plugins.loading.load_config`.
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
        raise OptionError(f'{cfg.filename} has no train_dataloader: there is '
                          'nothing to train')
    if amp:
        _use_amp(cfg)
    if auto_scale_lr:
        _use_auto_scale_lr(cfg)
    check_datasets(cfg, 'train', 'val')
    if resume == 'auto':
        check_latest_checkpoint(cfg.work_dir)
        cfg.resume, cfg.load_from = True, None
    elif resume is not None:
        check_checkpoint(resume)
        cfg.resume, cfg.load_from = True, resume
    runner = _build_runner(cfg)
    runner.register_hook(OptimizedBlocksHook())
    if runner._resume:
        runner.register_hook(CheckpointFitHook())
    return runner.train()


def test(cfg: Config,
         checkpoint: str,
         out: str | None = None,
         show: bool = False,
         show_dir: str | None = None,
         wait_time: float = 2,
         tta: bool = False,
         upgrade: bool = False) -> dict:
    """Test a model with the metrics of its config.

    Args:
        cfg (Config): Config from :func:`nl_plugins.loading.load_config`.
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
        raise OptionError(f'{cfg.filename} has no test_dataloader: there is '
                          'nothing to test')
    if show or show_dir is not None:
        _use_visualization(cfg, show, show_dir, wait_time)
    if tta:
        _use_tta(cfg)
    if out is not None:
        _check_out(cfg, out)
    if upgrade:
        hooks = cfg.get('custom_hooks') or []
        cfg.custom_hooks = [
            *hooks, dict(type='nl_plugins.UpgradeNonLocalHook')
        ]
    check_datasets(cfg, 'test')
    check_checkpoint(checkpoint)
    cfg.load_from, cfg.resume = checkpoint, False
    runner = _build_runner(cfg)
    runner.register_hook(CheckpointFitHook())
    if out is not None:
        _keep_predictions(runner, toolbox(cfg), out)
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
            f'config has {wrapper!r}')
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
            'auto_scale_lr.base_batch_size=N')
    cfg.auto_scale_lr.enable = True


def _use_visualization(cfg: Config, show: bool, show_dir: str | None,
                       wait_time: float) -> None:
    """Let the toolbox's own hook draw the prediction of every sample."""
    names = {'mmdet': 'DetVisualizationHook', 'mmseg': 'SegVisualizationHook'}
    scope = toolbox(cfg)
    if scope not in names:
        # mmaction2 1.2.0 has a hook, which passes its visualizer an argument
        # that this does not know.
        raise OptionError('--show and --show-dir are for detection and '
                          f'segmentation, but the config is for {scope}')
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise OptionError(
            '--show and --show-dir need a visualization hook, and the config '
            'has none: --cfg-options default_hooks.visualization.type='
            f'{names[scope]}')
    hook.update(draw=True, show=show, wait_time=wait_time)
    if scope == 'mmseg':
        hook.interval = 1
    if show_dir is not None:
        # DetVisualizationHook puts a relative folder into the work directory.
        folder = os.path.abspath(show_dir)
        if scope == 'mmseg':
            cfg.visualizer.save_dir = folder
        else:
            hook.test_out_dir = folder


def _use_tta(cfg: Config) -> None:
    """Switch test time augmentation on."""
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if toolbox(cfg) == 'mmdet':
        if any(
                part.get('mask_head')
                for part in (cfg.model, cfg.model.get('roi_head', {}))):
            raise OptionError('--tta of MMDetection is for boxes: it cannot '
                              'merge masks')
        # What MMDetection's own tool does when a config does not say it.
        cfg.setdefault(
            'tta_model',
            ConfigDict(
                type='DetTTAModel',
                tta_cfg=dict(
                    nms=dict(type='nms', iou_threshold=0.5),
                    max_per_img=100)))
        flips = [dict(type='RandomFlip', prob=prob) for prob in (1., 0.)]
        pack = dict(
            type='PackDetInputs',
            meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                       'scale_factor', 'flip', 'flip_direction'))
        cfg.setdefault('tta_pipeline', [
            *copy.deepcopy(dataset.pipeline[:-1]),
            dict(type='TestTimeAug', transforms=[flips, [pack]])
        ])
    for key in 'tta_model', 'tta_pipeline':
        if key not in cfg:
            raise OptionError(f'--tta needs {key}, and the config has none')
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(cfg.tta_model, module=cfg.model)


def _check_out(cfg: Config, out: str) -> None:
    """Check that predictions can be kept under a path."""
    is_pickle = out.endswith(('.pkl', '.pickle'))
    if toolbox(cfg) == 'mmseg':
        if is_pickle:
            raise OptionError(
                '--out of a segmentation test is a folder, which gets a PNG '
                f"label map per image, but got '{out}'")
    elif not is_pickle:
        raise OptionError(
            f"--out must end in .pkl or .pickle, but got '{out}'")


def _keep_predictions(runner: Runner, scope: str | None, out: str) -> None:
    """Let the toolbox's own metric keep the predictions."""
    metrics = runner.test_evaluator.metrics
    if scope == 'mmseg':
        writers = [m for m in metrics if hasattr(m, 'output_dir')]
        if not writers:
            raise OptionError(
                '--out needs a metric of MMSegmentation that writes label '
                "maps, such as test_evaluator.type='IoUMetric'")
        mkdir_or_exist(out)
        for metric in writers:
            metric.output_dir = out
    else:
        name = 'mmdet.DumpDetResults' if scope == 'mmdet' else 'DumpResults'
        metrics.append(METRICS.build(dict(type=name, out_file_path=out)))
