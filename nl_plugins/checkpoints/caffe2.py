"""Read checkpoints of the non-local paper's video code.

Source: https://github.com/facebookresearch/video-nonlocal-net, whose models
are pickled NumPy arrays under the names of Caffe2 blobs.
"""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import CheckpointReadError
from .arrays import STAND_INS
from .convert import EPS

_NORM = dict(s='weight', b='bias', rm='running_mean', riv='running_var')
_BRANCHES = dict(
    branch1='downsample', branch2a='conv1', branch2b='conv2', branch2c='conv3'
)
#: State of the training, which is not converted.
_OTHER = re.compile(r'.*_momentum|lr|epoch|model_iter|weight_decay(_bn)?|ONE')


def read_blobs(path: str | Path) -> dict[str, np.ndarray]:
    """Read a pickle file of arrays, and refuse anything else in it.

    Args:
        path (str | Path): File of the release, written by Python 2.

    Returns:
        dict[str, np.ndarray]: Parameters by the names of their blobs.

    Raises:
        CheckpointReadError: If it is damaged or holds anything but arrays.
    """
    with open(path, 'rb') as file:
        try:
            content = _ArrayUnpickler(file, encoding='latin1').load()
            blobs = content.get('blobs', content)
            return {
                name: _to_array(value)
                for name, value in blobs.items()
                if not _OTHER.fullmatch(name)
            }
        except Exception as error:  # a damaged file may raise anything
            raise CheckpointReadError(
                f'{path} is no pickled dict of arrays: {type(error).__name__}: {error}'
            ) from error


def _to_array(value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in 'biuf':
        raise ValueError(f'a {type(value).__name__} is no array of numbers')
    return array


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


def convert_blobs(blobs: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Convert blobs to the state dict of one of MMAction2's recognizers.

    An affine layer, the release's frozen batch norm, becomes the batch norm
    that computes the same.

    Args:
        blobs (dict[str, np.ndarray]): Parameters by the names of their blobs.

    Returns:
        dict[str, Tensor]: State dict of a recognizer with ``ResNet3d``. Its
        non-local blocks are after the residual blocks that the blobs name.

    Raises:
        CheckpointReadError: If a blob is not in a ResNet of the release.
    """
    state = {}
    for name, array in blobs.items():
        key = _convert_name(name)
        state[key] = torch.from_numpy(np.array(array, np.float32))
        if name.endswith('_bn_s') and f'{name[:-1]}rm' not in blobs:
            norm = key.removesuffix('.weight')
            state[f'{norm}.running_mean'] = torch.zeros(len(array))
            state[f'{norm}.running_var'] = torch.full((len(array),), 1 - EPS)
    return state


def _convert_name(name: str) -> str:
    """The key of a blob in the state dict of a recognizer."""
    classifier = re.fullmatch(r'pred_([wb])', name)
    if classifier:
        return f'cls_head.fc_cls.{_weight_or_bias(classifier[1])}'
    stem = re.fullmatch(r'conv1_w|res_conv1_bn_(s|b|rm|riv)', name)
    if stem:
        return 'backbone.conv1.' + (
            f'bn.{_NORM[stem[1]]}' if stem[1] else 'conv.weight'
        )
    layer = re.fullmatch(
        r'res([2-5])_(\d+)_(branch1|branch2[abc])_(?:w|bn_(s|b|rm|riv))', name
    )
    if layer:
        stage, block, branch, norm = layer.groups()
        return f'backbone.layer{int(stage) - 1}.{block}.{_BRANCHES[branch]}.' + (
            f'bn.{_NORM[norm]}' if norm else 'conv.weight'
        )
    non_local = re.fullmatch(
        r'nonlocal_conv([2-5])_(\d+)_'
        r'(?:(theta|phi|g|out)_([wb])|bn_(s|b|rm|riv))',
        name,
    )
    if non_local:
        stage, block, name, letter, norm = non_local.groups()
        prefix = f'backbone.layer{int(stage) - 1}.{block}.non_local_block.'
        if norm:
            return f'{prefix}conv_out.bn.{_NORM[norm]}'
        name = name.replace('out', 'conv_out')
        return f'{prefix}{name}.conv.{_weight_or_bias(letter)}'
    raise CheckpointReadError(
        f'{name!r} is no parameter of a ResNet of video-nonlocal-net'
    )


def _weight_or_bias(letter: str) -> str:
    return dict(w='weight', b='bias')[letter]
