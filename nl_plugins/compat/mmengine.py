"""Workarounds for bugs in mmengine 0.10 and its fork.

=============  ===========================================================
version        bug
=============  ===========================================================
0.10.7         ``torch.load`` of PyTorch >= 2.6 refuses the types in
               mmengine's own checkpoints. Files from URLs are loaded with
               ``weights_only=False``.
0.10.7         ``torchvision://`` names need an installed torchvision,
               although mmengine has a table of the addresses. An unknown
               name raises a ``KeyError``.
0.10.7         Every launcher calls ``torch.cuda.set_device``, and DDP gets
               ``device_ids``, also on a machine without an accelerator. The
               process group is not destroyed at the end.
0.10.7         ``SyncBatchNorm`` raises on CPU tensors in a distributed run
               (a limit of PyTorch; mmengine converts it to BN only in runs
               of one process).
0.10.7         ``get_model_complexity_info`` does not count fused attention,
               sorting and cumulative sums.
0.10.7         A base config of a toolbox (``mmdet::...``) parses all metafiles
               of the toolbox, every time, and imports ``pkg_resources``, whose
               two warnings users can do nothing about.
0.10.7         ``MLflowVisBackend`` names pictures without a suffix, which
               MLflow (3.17) cannot write.
onedl 0.10.12  Loads with ``weights_only=False`` what ``torch.load`` refuses,
               and lets checkpoints call ``getattr``.
onedl 0.10.12  Looks for ``mmseg::`` configs in the distribution
               mmsegmentation, not in its fork.
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
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.error import URLError

import mmengine
import mmengine.dist.utils
import mmengine.runner.checkpoint
import torch
from mmengine.analysis import complexity_analysis
from mmengine.config import ConfigDict
from mmengine.config import utils as config_utils
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.logging import HistoryBuffer, print_log
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.utils import digit_version
from mmengine.visualization import MLflowVisBackend
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
        # Before 2.6 torch.load has weights_only=False, which stays so.
        torch.serialization.add_safe_globals(_checkpoint_types())
        checkpoint.load_url = _load_url
        # A function of the fork.
        checkpoint._safe_torch_load = torch.load
    checkpoint.get_torchvision_models = _report_unknown_names(
        _without_torchvision(checkpoint.get_torchvision_models), 'torchvision://'
    )
    checkpoint.get_external_models = _report_unknown_names(
        checkpoint.get_external_models, 'open-mmlab://'
    )
    config_utils.load = functools.cache(config_utils.load)
    warnings.filterwarnings('ignore', 'pkg_resources is deprecated', UserWarning)
    if any(metadata.distributions(name='onedl-mmsegmentation')):
        config_utils.MODULE2PACKAGE['mmseg'] = 'onedl-mmsegmentation'
    for operator, handle in FLOP_HANDLES.items():
        complexity_analysis._DEFAULT_SUPPORTED_FLOP_OPS.setdefault(operator, handle)
    MLflowVisBackend.add_image = _with_suffix(MLflowVisBackend.add_image)
    for name in '_init_dist_pytorch', '_init_dist_mpi', '_init_dist_slurm':
        init = getattr(mmengine.dist.utils, name)
        setattr(mmengine.dist.utils, name, _init_dist_on_cpu(init))
    MMDistributedDataParallel.__init__ = _wrap_cpu_model(
        MMDistributedDataParallel.__init__
    )


# mmengine's checkpoints with torch.load(weights_only=True) -----------------


def _checkpoint_types() -> list:
    """The types in mmengine's checkpoints that ``torch.load`` would refuse.

    They were collected from runs of the three toolboxes, with EMA and seven
    kinds of schedules.
    """
    return [
        HistoryBuffer,
        ConfigDict,
        (_ONE_CYCLE, f'{OneCycleParamScheduler.__module__}.OneCycleParamScheduler'),
        (_getattr, 'builtins.getattr'),
        *((value, name) for name, value in STAND_INS.items()),
    ]


#: Stands in for OneCycleParamScheduler, of which checkpoints name functions.
_ONE_CYCLE = object()


def _getattr(owner: object, name: str) -> Callable:
    """Stands in for ``getattr`` while a checkpoint is loaded.

    A pickle gets methods by ``getattr``: the statistics of a history buffer,
    the annealing of a one-cycle schedule. Only these are allowed, since the
    real ``getattr`` would give a checkpoint every attribute of every object.
    """
    allowed: tuple[str, ...] = ()
    if owner is HistoryBuffer:
        allowed = 'min', 'max', 'mean', 'current'
    elif owner is _ONE_CYCLE:
        owner, allowed = OneCycleParamScheduler, ('_annealing_cos', '_annealing_linear')
    if name not in allowed:
        raise pickle.UnpicklingError(f'GLOBAL builtins.getattr of {owner} and {name!r}')
    return getattr(owner, name)


def _load_url(
    url: str,
    model_dir: str | None = None,
    map_location: Any = None,
    progress: bool = True,
) -> dict[str, Any]:
    """``torch.hub.load_state_dict_from_url`` with ``torch.load``'s default.

    Its own default is ``weights_only=False``.
    """
    try:
        return torch.hub.load_state_dict_from_url(
            url,
            model_dir,
            map_location,
            progress,
            weights_only=None,  # type: ignore[arg-type]  # torch.load's default
        )
    except URLError as error:
        folder = model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints')
        raise CheckpointNotFoundError(
            f'{url} cannot be downloaded ({error.reason}). Without network, '
            f'put the file into {folder}'
        ) from error


# Names of pretrained checkpoints -------------------------------------------


def _without_torchvision(get: Callable) -> Callable:
    """Read mmengine's table of ``torchvision://`` names without torchvision."""

    @functools.wraps(get)
    def get_torchvision_models() -> dict[str, str]:
        try:
            importlib.import_module('torchvision')
        except Exception:  # a build for another torch may raise anything
            return mmengine.load(
                Path(mmengine.__file__).parent / 'hub/torchvision_0.12.json'
            )
        return get()

    return get_torchvision_models


def _report_unknown_names(get: Callable, scheme: str) -> Callable:
    """Make a table of names and addresses report an unknown name."""

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


# Pictures in MLflow --------------------------------------------------------


def _with_suffix(add_image: Callable) -> Callable:
    """Name pictures as the local backend names its files."""

    @functools.wraps(add_image)
    def add(
        self: MLflowVisBackend, name: str, image: Any, step: int = 0, **kwargs: Any
    ) -> None:
        add_image(self, f'{name}_{step}.png', image, step, **kwargs)

    return add


# Distributed runs on the CPU -----------------------------------------------


def _init_dist_on_cpu(init: Callable) -> Callable:
    """Make a launcher of mmengine work on a machine without an accelerator."""

    @functools.wraps(init)
    def init_dist(backend: str, **kwargs: Any) -> None:
        if get_device() != 'cpu':
            init(backend, **kwargs)
            return
        with mock.patch.object(torch.cuda, 'set_device'):
            init('gloo' if backend == 'nccl' else backend, **kwargs)
        atexit.register(_destroy_process_group)
        if backend == 'nccl' and is_main_process():
            print_log(
                'There is no accelerator: the processes communicate through '
                'gloo instead of nccl.',
                logger='current',
            )

    return init_dist


def _destroy_process_group() -> None:
    """Stop gloo's threads, which could abort the process when Python exits."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        gc.collect()  # DDP, in reference cycles of the runner, refers to it


def _wrap_cpu_model(init: Callable) -> Callable:
    """Make ``MMDistributedDataParallel`` accept a model on the CPU."""

    @functools.wraps(init)
    def __init__(
        self: MMDistributedDataParallel, module: nn.Module, *args: Any, **kwargs: Any
    ) -> None:
        if all(p.device.type == 'cpu' for p in module.parameters()):
            # DDP accepts device ids only for accelerators.
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
