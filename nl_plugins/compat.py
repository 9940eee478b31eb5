"""Defects of upstream releases, healed where they are met.

This is the only module that knows about them. :func:`install` runs when
``nl_plugins`` is imported, so upstream's own ``tools/train.py`` profits too
from a config with ``custom_imports = dict(imports=['nl_plugins'])``. It
imports no toolbox.

======================  ====================================================
release                 defect
======================  ====================================================
mmaction2 1.2.0         the wheel lacks ``mmaction.models.localizers.drn``,
                        which ``mmaction.models`` imports
mmaction2 1.2.0         a video that cannot be read ends the run without
                        being named; healed by :func:`name_videos`, which
                        imports the toolbox
mmengine 0.10.7         ``torch.load`` of PyTorch >= 2.6 refuses the types
                        that its own checkpoints hold
mmengine 0.10.7         ``torchvision://`` names need an importable
                        torchvision, although mmengine has the addresses; an
                        unknown name is a ``KeyError``
onedl-mmengine 0.10.12  loads unsafely what ``torch.load`` refuses, and gives
                        checkpoints the real ``getattr``
onedl-mmengine 0.10.12  looks for ``mmseg::`` configs in the distribution
                        mmsegmentation alone, not in its fork
mmengine 0.10.7         ``_base_`` takes ``package::name`` of OpenMMLab's
                        packages alone
mmengine 0.10.7         every launcher calls ``torch.cuda.set_device``, and
                        DDP gets ``device_ids``, also on a machine without
                        any accelerator; no group is left at the end
mmengine 0.10.7         ``get_model_complexity_info`` counts nothing for a
                        fused attention, a sort or a cumulative sum
PyTorch                 ``SyncBatchNorm`` raises on CPU tensors as soon as a
                        process group exists
mmcv 2.1.0              ``MMSyncBN`` cannot be built without a process group;
                        healed by :func:`replace_mmsyncbn`, which needs the
                        config
======================  ====================================================
"""
import atexit
import difflib
import functools
import gc
import importlib
import importlib.abc
import importlib.machinery
import logging
import os
import pickle
import re
import sys
import traceback
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from unittest import mock
from urllib.error import URLError

import mmengine
import mmengine.dist.utils
import mmengine.runner.checkpoint
import torch
from mmengine.analysis import complexity_analysis
from mmengine.config import Config, ConfigDict
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.logging import HistoryBuffer, print_log
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner import CheckpointLoader
from mmengine.utils import check_file_exist, digit_version
from torch import nn

from .checkpoints.arrays import STAND_INS
from .complexity import FLOP_HANDLES
from .errors import (
    CheckpointNotFoundError,
    CheckpointReadError,
    VideoReadError,
    first_line,
)


@functools.cache
def install() -> None:
    """Heal all defects. A second call does nothing."""
    # Last in line: it is asked only for what nobody else finds.
    sys.meta_path.append(_DRNFinder())
    if digit_version(torch.__version__) >= digit_version('2.6'):
        # Before 2.6 the default of ``torch.load`` is the unsafe loading,
        # which this project leaves as it is.
        torch.serialization.add_safe_globals(_checkpoint_types())
        CheckpointLoader.load_checkpoint = classmethod(
            _explain_refusal(CheckpointLoader.load_checkpoint.__func__))
        mmengine.runner.checkpoint.load_url = _load_url
        # Only the fork has and calls it.
        mmengine.runner.checkpoint._safe_torch_load = torch.load
    checkpoint = mmengine.runner.checkpoint
    checkpoint.get_torchvision_models = _addresses(
        _torchvision_without_torchvision(checkpoint.get_torchvision_models),
        'torchvision://')
    checkpoint.get_external_models = _addresses(
        checkpoint.get_external_models, 'open-mmlab://')
    if any(metadata.distributions(name='onedl-mmsegmentation')):
        MODULE2PACKAGE['mmseg'] = 'onedl-mmsegmentation'
    Config._get_cfg_path = staticmethod(_find_base(Config._get_cfg_path))
    for operator, handle in FLOP_HANDLES.items():
        complexity_analysis._DEFAULT_SUPPORTED_FLOP_OPS.setdefault(
            operator, handle)
    for name in '_init_dist_pytorch', '_init_dist_mpi', '_init_dist_slurm':
        init = getattr(mmengine.dist.utils, name)
        setattr(mmengine.dist.utils, name, _init_dist_on_cpu(init))
    MMDistributedDataParallel.__init__ = _wrap_cpu_model(
        MMDistributedDataParallel.__init__)


# mmaction2: the module that its wheel forgot ------------------------------


class _DRNFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a stand-in for the modules that the mmaction2 wheel lacks."""

    package = 'mmaction.models.localizers.drn'

    def find_spec(self, fullname, path=None, target=None):
        if fullname in (self.package, f'{self.package}.drn'):
            return importlib.machinery.ModuleSpec(
                fullname, self, is_package=fullname == self.package)
        return None

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ != self.package:
            from mmaction.registry import MODELS
            module.DRN = MODELS.register_module(name='DRN', module=_DRN)


class _DRN(nn.Module):
    """Stand-in for mmaction2's localizer of that name."""

    def __init__(self, *args, **kwargs):
        raise ModuleNotFoundError(
            "the installed mmaction2 lacks 'mmaction.models.localizers.drn' "
            '(the wheel of 1.2.0 was built without it), so DRN cannot be '
            "used: install mmaction2 from its repository, tag 'v1.2.0'")


# mmaction2: which video it was --------------------------------------------


@functools.cache
def name_videos() -> None:
    """Let MMAction2's datasets name the video that cannot be read."""
    from mmaction.datasets import BaseActionDataset
    BaseActionDataset.prepare_data = _name_video(
        BaseActionDataset.prepare_data)


def _name_video(prepare: Callable) -> Callable:

    @functools.wraps(prepare)
    def prepare_data(self, idx):
        try:
            return prepare(self, idx)
        except (AssertionError, AttributeError, KeyError, TypeError):
            raise  # of the pipeline, not of a file
        except Exception as error:  # whatever a decoder may raise
            info = self.get_data_info(idx)
            name = info.get('filename') or info.get('frame_dir')
            reason = str(error).strip().splitlines() or ['']
            raise VideoReadError(
                f'{name} of {self.ann_file} cannot be read: '
                f'{type(error).__name__}: {reason[-1]}') from error

    return prepare_data


# mmengine: its own checkpoints under torch.load(weights_only=True) ---------


def _checkpoint_types() -> list:
    """The types that mmengine's checkpoints hold beside tensors.

    They are those of runs of the three toolboxes, with EMA and seven kinds
    of schedules.
    """
    return [
        HistoryBuffer,
        ConfigDict,
        (_ONE_CYCLE, f'{OneCycleParamScheduler.__module__}.'
         'OneCycleParamScheduler'),
        (_getattr, 'builtins.getattr'),
        *((value, name) for name, value in STAND_INS.items()),
    ]


#: Stands in for the class, whose functions alone a checkpoint names.
_ONE_CYCLE = object()


def _getattr(owner: object, name: str) -> Callable:
    """What stands in for ``getattr`` while a checkpoint is loaded.

    Methods are pickled by ``getattr``: the statistics of a history buffer,
    the annealing of a one-cycle schedule. The real ``getattr`` would open
    every attribute of every object to a checkpoint.
    """
    if owner is HistoryBuffer:
        allowed = 'min', 'max', 'mean', 'current'
    elif owner is _ONE_CYCLE:
        owner, allowed = OneCycleParamScheduler, (
            '_annealing_cos', '_annealing_linear')
    else:
        allowed = ()
    if name not in allowed:
        raise pickle.UnpicklingError(
            f'GLOBAL builtins.getattr of {owner} and {name!r}')
    return getattr(owner, name)


def _explain_refusal(load: Callable) -> Callable:
    """Make ``CheckpointLoader.load_checkpoint`` say what it refused."""

    @functools.wraps(load)
    def load_checkpoint(cls, filename, *args, **kwargs):
        try:
            return load(cls, filename, *args, **kwargs)
        except Exception as error:  # a file may hold anything
            found = re.search(r'GLOBAL ([\w.]+)', str(error))
            if found is None:
                if not _is_of_the_file(error):
                    raise
                reason = re.search(r'WeightsUnpickler error:\s+(.*)',
                                   str(error))
                raise CheckpointReadError(
                    f'{filename} cannot be read as a checkpoint: it is '
                    'damaged, or not written by torch.save '
                    f'({reason[1] if reason else first_line(error)})'
                ) from error
            name = found[1]
        # Outside of the handler, so that PyTorch's page of advice does not
        # precede the message.
        raise CheckpointReadError(
            f"{filename} is refused: it holds '{name}', and only tensors, "
            'plain Python values, NumPy arrays and the types of '
            "mmengine's own checkpoints are loaded, because any other type "
            'may run code. If you trust its maker, keep its weights alone: '
            f"ckpt = torch.load('{filename}', weights_only=False); "
            "torch.save(dict(state_dict=ckpt['state_dict']), 'weights.pth')")

    return load_checkpoint


def _is_of_the_file(error: Exception) -> bool:
    """Whether an error says that the content of a file is wrong.

    Not that there is no file, or that a device cannot hold its tensors.
    """
    if isinstance(error, RuntimeError):
        return 'PytorchStreamReader' in str(error)
    return not isinstance(error, OSError) and any(
        frame.f_globals.get('__name__') == 'torch.serialization'
        for frame, _ in traceback.walk_tb(error.__traceback__))


def _load_url(url: str, model_dir=None, map_location=None, progress=True):
    """``torch.hub.load_state_dict_from_url`` with ``torch.load``'s default.

    Its own default is still the unsafe loading.
    """
    try:
        return torch.hub.load_state_dict_from_url(
            url, model_dir, map_location, progress, weights_only=None)
    except URLError as error:
        folder = model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints')
        raise CheckpointNotFoundError(
            f'{url} cannot be downloaded ({error.reason}). Without network, '
            f'put the file into {folder}') from error


# mmengine: names of pretrained weights -------------------------------------


def _torchvision_without_torchvision(get: Callable) -> Callable:
    """Let ``torchvision://`` names do without the package.

    mmengine imports it for the addresses that it has itself.
    """

    @functools.wraps(get)
    def get_torchvision_models():
        try:
            importlib.import_module('torchvision')
        except Exception:  # a build for another torch raises what it likes
            return mmengine.load(
                Path(mmengine.__file__).parent / 'hub/torchvision_0.12.json')
        return get()

    return get_torchvision_models


def _addresses(get: Callable, scheme: str) -> Callable:
    """Let a table of names and addresses say which name is unknown."""

    class Addresses(dict):

        def __missing__(self, name: str) -> str:
            close = difflib.get_close_matches(name, self, n=3, cutoff=.5)
            raise CheckpointNotFoundError(
                f"there are no weights '{scheme}{name}'; " +
                (f'did you mean {" or ".join(close)}?' if close else
                 f'the names are {", ".join(sorted(self))}'))

    return functools.wraps(get)(lambda: Addresses(get()))


# mmengine: configs of this package as bases --------------------------------


def _find_base(find: Callable) -> Callable:
    """Let ``_base_ = 'nl_plugins::...'`` name a config of this package."""

    @functools.wraps(find)
    def _get_cfg_path(cfg_path, filename):
        package, _, name = cfg_path.partition('::')
        if package != __package__:
            return find(cfg_path, filename)
        path = str(Path(__file__).parent / '.mim' / 'configs' / name)
        check_file_exist(path)
        # No scope: it would hide the toolbox, whose types these configs name.
        return path, None

    return _get_cfg_path


# mmengine: distributed runs on the CPU -------------------------------------


def _init_dist_on_cpu(init: Callable) -> Callable:
    """Let a launcher of mmengine work on a machine without accelerator."""

    @functools.wraps(init)
    def init_dist(backend, **kwargs):
        if get_device() != 'cpu':
            return init(backend, **kwargs)
        with mock.patch.object(torch.cuda, 'set_device'):
            init('gloo' if backend == 'nccl' else backend, **kwargs)
        atexit.register(_leave_group)
        if backend == 'nccl' and is_main_process():
            print_log(
                'There is no accelerator: the processes communicate through '
                'gloo instead of nccl.',
                logger='current')

    return init_dist


def _leave_group() -> None:
    """End the threads of gloo before the interpreter ends.

    One that still runs then aborts the process now and again.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        gc.collect()  # DDP in the runner's circles holds it too


def _wrap_cpu_model(init: Callable) -> Callable:
    """Let ``MMDistributedDataParallel`` wrap a model that is on the CPU."""

    @functools.wraps(init)
    def __init__(self, module, *args, **kwargs):
        if all(p.device.type == 'cpu' for p in module.parameters()):
            # DDP accepts device ids for accelerators only.
            kwargs.pop('device_ids', None)
            synced = sum(
                isinstance(m, nn.SyncBatchNorm) for m in module.modules())
            if synced:
                print_log(
                    f'SyncBatchNorm works on no CPU tensor: {synced} layers '
                    'of the model become BatchNorm, each process with the '
                    'statistics of its own batch.',
                    logger='current',
                    level=logging.WARNING)
                module = revert_sync_batchnorm(module)
        init(self, module, *args, **kwargs)

    return __init__


def replace_mmsyncbn(config: object) -> None:
    """Turn ``MMSyncBN`` into ``SyncBN``, in place, wherever a config has it.

    For runs of one process or on the CPU: ``SyncBN`` can be built there, and
    becomes BN. It has the same parameters and state dict.

    Args:
        config (object): A config, or a list of configs.
    """
    if isinstance(config, dict):
        if config.get('type') == 'MMSyncBN':
            config['type'] = 'SyncBN'
        config = config.values()
    elif not isinstance(config, (list, tuple)):
        return
    for value in config:
        replace_mmsyncbn(value)
