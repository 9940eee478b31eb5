"""Train and test with any of the toolboxes: what ``tools/`` calls.

A run is one of mmengine's runners, built from a config of MMDetection,
MMSegmentation or MMAction2. Around it this module adds what a person expects
of a command line: configs found by name, the options of the toolboxes' own
tools, the same for all three, and an early, clear word on what is wrong.
"""
import argparse
import contextlib
import copy
import difflib
import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import METRICS, RUNNERS
from mmengine.runner import Runner
from mmengine.utils import mkdir_or_exist
from torch import nn

from .checks import (
    CheckpointFitHook,
    check_checkpoint,
    check_datasets,
    check_latest_checkpoint,
)
from .compat import replace_mmsyncbn
from .errors import (
    ConfigNotFoundError,
    OptionError,
    RunError,
    ToolboxNotInstalledError,
)

# The toolboxes that this project is for, with the extra that brings them.
_EXTRAS = dict(mmdet='det', mmseg='seg', mmaction='video')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing share.

    Args:
        parser (argparse.ArgumentParser): Parser of a command-line tool.
    """
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help='folder of logs and checkpoints; without it, work_dir of the '
        'config, or ./work_dirs/<name of the config>')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config, such as '
        'train_dataloader.batch_size=4 or randomness.seed=0; lists are '
        'written key="[a,b]" or key=a,b, nested ones key="[(a,b),(c,d)]", '
        'without white space')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes of a distributed run '
        '(default: none)')
    # Set by torch.distributed.launch.
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help=argparse.SUPPRESS)


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Turn what a user can fix into one message and exit status 1.

    Of several processes only the first one speaks.
    """
    try:
        yield
    except RunError as error:
        ranks = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
        rank = next((os.environ[k] for k in ranks if k in os.environ), '0')
        if rank != '0':
            # A launcher ends all processes when the first one is gone.
            time.sleep(10)
            sys.exit(1)
        sys.exit(f'error: {error}')


# Configs ------------------------------------------------------------------


def load_config(name: str,
                options: dict | None = None,
                work_dir: str | None = None,
                launcher: str = 'none') -> Config:
    """Load a config from a file or, by its name, from a toolbox.

    Args:
        name (str): Path of a config, or its name in upstream's form, such as
            ``'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'``.
        options (dict, optional): Settings to override, with dotted keys.
            Defaults to None.
        work_dir (str, optional): Folder of logs and checkpoints. Defaults to
            None: ``work_dir`` of the config, or
            ``./work_dirs/<name of the config>``.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
            Defaults to ``'none'``.

    Returns:
        Config: The config, its toolbox imported and registered.

    Raises:
        ConfigNotFoundError: There is no such config.
        ToolboxNotInstalledError: Its toolbox cannot be imported.
    """
    path = _find_config(name)
    try:
        cfg = Config.fromfile(path)
    except FileNotFoundError as error:
        raise ConfigNotFoundError(
            f'{name}: a config that it inherits is missing: {error}') from None
    except ModuleNotFoundError as error:
        raise ToolboxNotInstalledError(
            f'{name}: {error}. {_how_to_install(error)}') from None
    cfg.merge_from_dict(options or {})
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('./work_dirs', path.stem)
    _import_toolbox(cfg.get('default_scope'))
    return cfg


def _find_config(name: str) -> Path:
    """The file of a config."""
    package, separator, inner = name.rpartition('::')
    if not separator:
        path = Path(name)
        if path.is_file():
            return path
        raise ConfigNotFoundError(
            f"there is no config '{name}'{_suggest(name, _all_configs())}")
    if package not in MODULE2PACKAGE:
        raise ConfigNotFoundError(
            f"there is no config '{name}': '{package}' is not a toolbox of "
            f'OpenMMLab{_suggest(package, {key: key for key in _EXTRAS})}')
    root = _upstream_configs(package)
    if root is None:
        raise ToolboxNotInstalledError(
            f"'{name}' needs {package}, which is not installed. "
            f'{_how_to_install(package)}')
    if (root / inner).is_file():
        return root / inner
    names = _spell_configs(root, f'{package}::')
    raise ConfigNotFoundError(
        f"there is no config '{inner}' in {package}{_suggest(inner, names)}")


def _upstream_configs(package: str) -> Path | None:
    """The folder of configs that a toolbox brings, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return None
    return Path(spec.submodule_search_locations[0], '.mim', 'configs')


def _spell_configs(root: Path, prefix: str) -> dict[str, str]:
    """Configs below a folder, and how each is written as an argument."""
    names = (path.relative_to(root).as_posix() for path in root.rglob('*.py'))
    return {name: prefix + name for name in names}


def _all_configs() -> dict[str, str]:
    """All configs that could be meant: of the toolboxes and our own."""
    found = {}
    for package in _EXTRAS:
        root = _upstream_configs(package)
        if root is not None:
            found |= _spell_configs(root, f'{package}::')
    return found | _spell_configs(
        Path(__file__).parents[1] / 'configs', 'configs/')


def _suggest(name: str, known: dict[str, str]) -> str:
    """The end of a message about an unknown name: what it resembles."""
    name = name.rpartition('configs/')[2]
    close = difflib.get_close_matches(name, known, n=3)
    if not close:
        return ''
    return '; did you mean ' + ' or '.join(known[key] for key in close) + '?'


# Toolboxes ----------------------------------------------------------------


def _import_toolbox(scope: str | None) -> None:
    """Import the toolbox that a config names and register its modules."""
    if scope in (None, 'mmengine', 'nl_plugins'):
        return
    try:
        utils = importlib.import_module(f'{scope}.utils')
        utils.register_all_modules(init_default_scope=False)
    except ModuleNotFoundError as error:
        raise ToolboxNotInstalledError(
            f'the config needs {scope}, which cannot be imported: {error}. '
            f'{_how_to_install(scope)}') from error
    if scope == 'mmdet':
        # As its tools do: fewer repeated compilations with torch.compile.
        utils.setup_cache_size_limit_of_dynamo()


def _toolbox(cfg: Config) -> str | None:
    """The toolbox of a config.

    Configs in pure Python have no default scope, but classes for types.
    """
    scope = cfg.get('default_scope')
    if scope is None:
        dataset = (cfg.get('test_dataloader') or {}).get('dataset', {})
        scope = getattr(dataset.get('type'), '__module__', '').split('.')[0]
    return scope


def _how_to_install(missing: object) -> str:
    """What to do about a toolbox that is missing."""
    extra = next((extra for name, extra in _EXTRAS.items()
                  if name in str(missing)), 'all')
    return ('Install it with: bash tools/install.sh, or: pip install '
            f"'nl_plugins[{extra}]'")


# Runs ---------------------------------------------------------------------


def train(cfg: Config,
          resume: str | None = None,
          amp: bool = False,
          auto_scale_lr: bool = False) -> nn.Module:
    """Train the model of a config.

    Args:
        cfg (Config): Config from :func:`load_config`.
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
        OptionError: ``amp`` or ``auto_scale_lr`` do not go with the config.
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
    if runner._resume:
        runner.register_hook(CheckpointFitHook())
    return runner.train()


def test(cfg: Config,
         checkpoint: str,
         out: str | None = None,
         show: bool = False,
         show_dir: str | None = None,
         wait_time: float = 2,
         tta: bool = False) -> dict:
    """Test a model with the metrics of its config.

    Args:
        cfg (Config): Config from :func:`load_config`.
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
    check_datasets(cfg, 'test')
    check_checkpoint(checkpoint)
    cfg.load_from, cfg.resume = checkpoint, False
    runner = _build_runner(cfg)
    runner.register_hook(CheckpointFitHook())
    if out is not None:
        _keep_predictions(runner, _toolbox(cfg), out)
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
    scope = _toolbox(cfg)
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
    if _toolbox(cfg) == 'mmdet':
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
    if _toolbox(cfg) == 'mmseg':
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
