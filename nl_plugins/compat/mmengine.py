"""Workarounds for mmengine 0.10, and its fork of that series.

=============  ===========================================================
version        bug
=============  ===========================================================
0.10.7         ``torch.load`` of PyTorch >= 2.6 refuses the types that
               mmengine's own checkpoints hold. URLs are still loaded
               unsafely.
0.10.7         ``torchvision://`` names need an importable torchvision,
               although mmengine has the addresses. An unknown name is a
               ``KeyError``.
0.10.7         Every launcher calls ``torch.cuda.set_device``, and DDP gets
               ``device_ids``, also on a machine without any accelerator.
               No process group is left at the end.
0.10.7         ``SyncBatchNorm`` raises on CPU tensors as soon as a process
               group exists (PyTorch's limit, which mmengine reverts in
               runs of one process alone).
0.10.7         ``get_model_complexity_info`` counts nothing for a fused
               attention, a sort or a cumulative sum.
onedl 0.10.12  Loads unsafely what ``torch.load`` refuses, and gives
               checkpoints the real ``getattr``.
onedl 0.10.12  Looks for ``mmseg::`` configs in the distribution
               mmsegmentation alone, not in its fork.
=============  ===========================================================
"""

import atexit
import difflib
import functools
import gc
import importlib
import logging
import os
import pickle
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from unittest import mock
from urllib.error import URLError

import mmengine
import mmengine.dist.utils
import mmengine.runner.checkpoint
import torch
from mmengine.analysis import complexity_analysis
from mmengine.config import ConfigDict
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.logging import HistoryBuffer, print_log
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.utils import digit_version
from torch import nn

from ..checkpoints.arrays import STAND_INS
from ..errors import CheckpointNotFoundError
from ..functional.flops import FLOP_HANDLES


def install() -> None:
    """Apply the workarounds to mmengine 0.10."""
    if digit_version(mmengine.__version__) >= digit_version('0.11'):
        return
    checkpoint = mmengine.runner.checkpoint
    if digit_version(torch.__version__) >= digit_version('2.6'):
        # Before 2.6 the default of ``torch.load`` is the unsafe loading,
        # which this project leaves as it is.
        torch.serialization.add_safe_globals(_checkpoint_types())
        checkpoint.load_url = _load_url
        # Only the fork has and calls it.
        checkpoint._safe_torch_load = torch.load
    checkpoint.get_torchvision_models = _addresses(
        _torchvision_without_torchvision(checkpoint.get_torchvision_models),
        'torchvision://',
    )
    checkpoint.get_external_models = _addresses(
        checkpoint.get_external_models, 'open-mmlab://'
    )
    if any(metadata.distributions(name='onedl-mmsegmentation')):
        MODULE2PACKAGE['mmseg'] = 'onedl-mmsegmentation'
    for operator, handle in FLOP_HANDLES.items():
        complexity_analysis._DEFAULT_SUPPORTED_FLOP_OPS.setdefault(operator, handle)
    for name in '_init_dist_pytorch', '_init_dist_mpi', '_init_dist_slurm':
        init = getattr(mmengine.dist.utils, name)
        setattr(mmengine.dist.utils, name, _init_dist_on_cpu(init))
    MMDistributedDataParallel.__init__ = _wrap_cpu_model(
        MMDistributedDataParallel.__init__
    )


# Its own checkpoints under torch.load(weights_only=True) -------------------


def _checkpoint_types() -> list:
    """The types that mmengine's checkpoints hold beside tensors.

    They are those of runs of the three toolboxes, with EMA and seven kinds
    of schedules.
    """
    return [
        HistoryBuffer,
        ConfigDict,
        (_ONE_CYCLE, f'{OneCycleParamScheduler.__module__}.OneCycleParamScheduler'),
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
        owner, allowed = OneCycleParamScheduler, ('_annealing_cos', '_annealing_linear')
    else:
        allowed = ()
    if name not in allowed:
        raise pickle.UnpicklingError(f'GLOBAL builtins.getattr of {owner} and {name!r}')
    return getattr(owner, name)


def _load_url(url: str, model_dir=None, map_location=None, progress=True):
    """``torch.hub.load_state_dict_from_url`` with ``torch.load``'s default.

    Its own default is still the unsafe loading.
    """
    try:
        return torch.hub.load_state_dict_from_url(
            url, model_dir, map_location, progress, weights_only=None
        )
    except URLError as error:
        folder = model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints')
        raise CheckpointNotFoundError(
            f'{url} cannot be downloaded ({error.reason}). Without network, '
            f'put the file into {folder}'
        ) from error


# Names of pretrained weights -----------------------------------------------


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
                Path(mmengine.__file__).parent / 'hub/torchvision_0.12.json'
            )
        return get()

    return get_torchvision_models


def _addresses(get: Callable, scheme: str) -> Callable:
    """Let a table of names and addresses say which name is unknown."""

    class Addresses(dict):
        def __missing__(self, name: str) -> str:
            close = difflib.get_close_matches(name, self, n=3, cutoff=0.5)
            raise CheckpointNotFoundError(
                f"there are no weights '{scheme}{name}'; "
                + (
                    f'did you mean {" or ".join(close)}?'
                    if close
                    else f'the names are {", ".join(sorted(self))}'
                )
            )

    return functools.wraps(get)(lambda: Addresses(get()))


# Distributed runs on the CPU -----------------------------------------------


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
                logger='current',
            )

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
            synced = sum(isinstance(m, nn.SyncBatchNorm) for m in module.modules())
            if synced:
                print_log(
                    f'SyncBatchNorm works on no CPU tensor: {synced} layers '
                    'of the model become BatchNorm, each process with the '
                    'statistics of its own batch.',
                    logger='current',
                    level=logging.WARNING,
                )
                module = revert_sync_batchnorm(module)
        init(self, module, *args, **kwargs)

    return __init__
