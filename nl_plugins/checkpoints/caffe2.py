"""Read checkpoints of Caffe2: pickled NumPy arrays under the names of blobs.

Sources: https://github.com/facebookresearch/video-nonlocal-net, the non-local
paper's video code, and the older models of PySlowFast.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import CheckpointReadError
from .arrays import STAND_INS
from .convert import EPS
from .renaming import Source
from .slowfast import ONE_PATHWAY, TWO_PATHWAYS, swap_pathways

#: State of the training, which is not converted.
_TRAINING = r'.*_momentum|lr|epoch|model_iter|weight_decay(_bn)?|ONE'


def read_blobs(path: str | Path) -> dict[str, Tensor]:
    """Read a pickle file of arrays, and refuse anything else in it.

    Args:
        path (str | Path): File of the release, written by Python 2.

    Returns:
        dict[str, Tensor]: Parameters and state of the training by the names
        of their blobs.

    Raises:
        CheckpointReadError: If it is damaged or holds anything but arrays.
    """
    with open(path, 'rb') as file:
        try:
            content = _ArrayUnpickler(file, encoding='latin1').load()
            blobs = content.get('blobs', content)
            return {name: _to_tensor(name, value) for name, value in blobs.items()}
        except Exception as error:  # a damaged file may raise anything
            raise CheckpointReadError(
                f'{path} is no pickled dict of arrays: {type(error).__name__}: {error}'
            ) from error


def _to_tensor(name: Any, value: Any) -> Tensor:
    array = np.asarray(value)
    if not isinstance(name, str) or array.dtype.kind not in 'biuf':
        raise ValueError(f'{name!r}: a {type(value).__name__} is no array of numbers')
    return torch.from_numpy(np.array(array, np.float32))


class _ArrayUnpickler(pickle.Unpickler):
    """Builds arrays and refuses every other class or function."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ('_codecs', 'encode'):
            return _encode
        try:
            return STAND_INS[f'{module}.{name}']
        except KeyError:
            raise pickle.UnpicklingError(f'it holds a {module}.{name}') from None


def _encode(text: str, encoding: str) -> bytes:
    """Decode bytes of Python 2, and refuse any other codec."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'it holds text in {encoding!r}')
    return text.encode('latin1')


def _add_statistics(state_dict: dict[str, Tensor]) -> None:
    """Turn affine layers, frozen batch norms, into the norms that do the same."""
    for key in [key for key in state_dict if key.endswith('.bn.weight')]:
        norm = key.removesuffix('weight')
        if f'{norm}running_mean' not in state_dict:
            state_dict[f'{norm}running_mean'] = torch.zeros_like(state_dict[key])
            state_dict[f'{norm}running_var'] = torch.full_like(state_dict[key], 1 - EPS)


_TABLE = (
    (r'_bn_s$', '.bn.weight'),
    (r'_bn_b$', '.bn.bias'),
    (r'_bn_rm$', '.bn.running_mean'),
    (r'_bn_riv$', '.bn.running_var'),
    (r'_w$', '.conv.weight'),
    (r'_b$', '.conv.bias'),
    (r'^pred\.conv', 'cls_head.fc_cls'),
    (r'^t_', 'pathway1.'),
    (r'^(?=conv1|res|nonlocal)', 'pathway0.'),
    (r'\.res_conv1\.', '.conv1.'),
    *((rf'\.res{n + 1}_(\d+)_', rf'.layer{n}.\1.') for n in range(1, 5)),
    (r'^pathway1\.pool1_subsample\.', 'pathway0.conv1_lateral.'),
    (
        r'^pathway1\.(layer\d)\.\d+\.branch2c_bn_subsample\.',
        r'pathway0.\1_lateral.',
    ),
    (r'\.branch1\.', '.downsample.'),
    *((rf'\.branch2{x}\.', f'.conv{n}.') for n, x in enumerate('abc', 1)),
    *(
        (rf'\.nonlocal_conv{n + 1}_(\d+)', rf'.layer{n}.\1.non_local_block')
        for n in range(1, 5)
    ),
    (r'_block_(theta|phi|g)\.', r'_block.\1.'),
    (r'_block(?:_out)?\.(conv|bn)\.', r'_block.conv_out.\1.'),
)
#: Names in files of the paper's video code, and of PySlowFast's older models.
SOURCES = (
    Source(
        "PySlowFast's Caffe2 models",
        't_conv1_w$',
        _TABLE + TWO_PATHWAYS,
        swap_pathways,
        _TRAINING,
    ),
    Source(
        'video-nonlocal-net and of PySlowFast',
        'conv1_w$',
        _TABLE + ONE_PATHWAY,
        _add_statistics,
        _TRAINING,
    ),
)
