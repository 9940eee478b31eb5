"""Whitening of query and key.

Letters as in :mod:`nl_plugins.blocks.base`.
"""

from math import prod

import torch
from torch import Tensor

#: What is subtracted: means over positions, or over heads, positions and
#: channels; and whether the result is divided by the standard deviation.
KINDS = ('channel', 'layer', 'channel_std', 'layer_std')
#: Added to the variance, as in the code of the DNL paper.
EPS = 1e-5


def whiten(tokens: Tensor, kind: str) -> Tensor:
    r"""Subtract the mean, and divide by the standard deviation if asked.

    .. math:: \frac{t - \mu}{\sqrt{\sigma^2 + \epsilon}}

    The variance is the unbiased one. That of a single number is 0.

    Args:
        tokens (Tensor): Shape ``(G, h, N, D)``.
        kind (str): One of :data:`KINDS`.

    Returns:
        Tensor: Shape of ``tokens``.
    """
    dims = (2,) if kind.startswith('channel') else (1, 2, 3)
    centred = tokens - tokens.mean(dim=dims, keepdim=True)
    if not kind.endswith('std'):
        return centred
    # In half precision the squares would overflow.
    exact = centred.to(torch.promote_types(centred.dtype, torch.float32))
    freedom = max(prod([tokens.shape[d] for d in dims]) - 1, 1)
    variance = exact.square().sum(dim=dims, keepdim=True) / freedom
    return (exact * (variance + EPS).rsqrt()).to(tokens.dtype)
