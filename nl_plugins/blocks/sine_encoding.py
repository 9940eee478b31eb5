"""Encoding of positions by sines and cosines."""

import math
from typing import Any

import torch
from torch import Tensor

#: Ratio of the longest to the shortest wavelength.
TEMPERATURE = 10000.0
#: Keeps the normalized coordinates finite, as in MMDetection.
EPS = 1e-6


def with_sine_encoding(features: Tensor) -> Tensor:
    r"""Add to every position the sines and cosines of its coordinates.

    Of :math:`D` channels of the coordinate :math:`p` of an axis with
    :math:`n` positions, counted from 1,

    .. math::
        e_{2i} = \sin\frac{2\pi p}{n\, 10000^{2i / D}}, \qquad
        e_{2i+1} = \cos\frac{2\pi p}{n\, 10000^{2i / D}}

    Height and width have half of the channels each. Time has all of them and
    is added. It is the encoding of `DETR <https://arxiv.org/abs/2005.12872>`_
    (in its appendix), and has the values of MMDetection's
    ``SinePositionalEncoding`` with ``normalize=True``, and of its 3D form.

    Args:
        features (Tensor): Shape ``(B, C, *size)`` with one, two or three
            sizes. ``C`` must be even, in two and three dimensions a multiple
            of 4.

    Returns:
        Tensor: Shape of ``features``.
    """
    channels, size = features.shape[1], features.shape[2:]
    dtype = torch.promote_types(features.dtype, torch.float32)

    def encode(length: int, channels: int) -> Tensor:
        """Encoding of one axis, ``(channels, length)``."""
        kwargs: Any = dict(dtype=dtype, device=features.device)
        steps = torch.arange(1, length + 1, **kwargs) / (length + EPS)
        powers = torch.arange(0, channels, 2, **kwargs) / channels
        angles = 2 * math.pi * steps / (TEMPERATURE**powers).unsqueeze(1)
        return torch.stack([angles.sin(), angles.cos()], dim=1).flatten(0, 1)

    if len(size) == 1:
        encoding = encode(size[0], channels)
    else:
        height, width = size[-2:]
        rows = encode(height, channels // 2).unsqueeze(2).expand(-1, -1, width)
        columns = encode(width, channels // 2).unsqueeze(1).expand(-1, height, -1)
        encoding = torch.cat([rows, columns])
    if len(size) == 3:
        frames = encode(size[0], channels).unsqueeze(2).unsqueeze(3)
        encoding = encoding.unsqueeze(1) + frames
    return features + encoding.to(features.dtype)
