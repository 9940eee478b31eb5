"""Workarounds for MMAction2 1.2.

=======  =================================================================
version  bug
=======  =================================================================
1.2.0    The wheel lacks ``mmaction.models.localizers.drn``, which
         ``mmaction.models`` imports. Where the module exists, it is used.
1.2.0    Uses ``np.Inf``, ``np.NAN``, ``np.trapz`` and ``np.in1d`` (skeletons,
         localization, retrieval, AVA), which NumPy 2 removed.
1.2.0    A video that cannot be read ends the run without being named:
         :func:`name_videos`, which imports the toolbox.
=======  =================================================================
"""

import functools
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable
from importlib import metadata
from types import ModuleType
from typing import Any

import numpy as np
from mmengine.utils import digit_version
from torch import nn

from ..errors import VideoReadError


def install() -> None:
    """Apply what can be applied before the toolbox is imported."""
    # Last in line: it is asked only for what nobody else finds.
    sys.meta_path.append(_DRNFinder())
    restore_numpy_names()


def restore_numpy_names() -> None:
    """Give NumPy 2 the names back that MMAction2 uses, if it is installed."""
    found = next(iter(metadata.distributions(name='mmaction2')), None)
    if found is None or digit_version(found.version) > digit_version('1.2.0'):
        return
    renamed = dict(Inf='inf', NAN='nan', trapz='trapezoid', in1d='isin')
    for old, new in renamed.items():
        if not hasattr(np, old):
            setattr(np, old, getattr(np, new))


class _DRNFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a stand-in for the modules that the mmaction2 wheel lacks."""

    package = 'mmaction.models.localizers.drn'

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname in (self.package, f'{self.package}.drn'):
            return importlib.machinery.ModuleSpec(
                fullname, self, is_package=fullname == self.package
            )
        return None

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ != self.package:
            from mmaction.registry import MODELS

            MODELS.register_module(name='DRN', module=_DRN)
            vars(module)['DRN'] = _DRN


class _DRN(nn.Module):
    """Stand-in for mmaction2's localizer of that name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise ModuleNotFoundError(
            "the installed mmaction2 lacks 'mmaction.models.localizers.drn' "
            '(the wheel of 1.2.0 was built without it), so DRN cannot be '
            "used: install mmaction2 from its repository, tag 'v1.2.0'"
        )


@functools.cache
def name_videos() -> None:
    """Let MMAction2's datasets name the video that cannot be read."""
    from mmaction.datasets import BaseActionDataset

    BaseActionDataset.prepare_data = _name_video(BaseActionDataset.prepare_data)


def _name_video(prepare: Callable) -> Callable:

    @functools.wraps(prepare)
    def prepare_data(self: Any, idx: int) -> Any:
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
                f'{type(error).__name__}: {reason[-1]}'
            ) from error

    return prepare_data
