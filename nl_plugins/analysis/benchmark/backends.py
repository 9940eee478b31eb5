"""The backends of an attention against each other, without projections.

Those of the softmax attention justify the rule by which
:func:`nl_plugins.functional.softmax_attention` chooses.
"""

import math
import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ...functional import attention
from ...functional.chunked import (
    chunked_softmax_attention,
    naive_softmax_attention,
)
from ..measuring import time_in_turns
from ..tables import Table

#: Channels of key and value, and numbers of positions.
HEADS = ((128, 128), (256, 256), (512, 256), (64, 512))
POSITIONS = (196, 784, 1568, 3136, 8192)

_BACKENDS = dict(
    naive=naive_softmax_attention,
    fused=attention._fused_softmax_attention,
    chunked=chunked_softmax_attention,
)


def compare_backends(device: str, repeats: int) -> list[Table]:
    """Time every backend, forward and backward, fp32.

    Args:
        device (str): Where to run.
        repeats (int): Timed turns of each.

    Returns:
        list[Table]: Median milliseconds, with the backend that the rule
        chooses; and those of the two ways to compute the concatenation.
    """
    softmax, concatenation = [], []
    for channels, value_channels in HEADS:
        for positions in POSITIONS:
            inputs = [
                torch.randn(1, c, positions, device=device).mT
                for c in (channels, channels, value_channels)
            ]
            chosen = attention._softmax_backend(*inputs)
            times = _milliseconds(list(_BACKENDS.values()), inputs, repeats)
            cells = [f'{time:.2f} ms' for time in times]
            sizes = f'{channels}, {value_channels}'
            softmax.append([sizes, str(positions), *cells, chosen])
    for positions in (196, 768):
        inputs = [torch.randn(1, positions, 256, device=device) for _ in range(3)]
        ways = [_concatenation_of_pairs, _concatenation_of_sums]
        pairs, sums = _milliseconds(ways, inputs, repeats)
        ratio = f'{sums:.2f} ms ({pairs / sums:.0f}x)'
        concatenation.append([str(positions), f'{pairs:.2f} ms', ratio])
    head = ['key, value channels', 'positions', *_BACKENDS, 'chosen']
    return [
        Table('Softmax attention', head, softmax),
        Table(
            'Concatenation, 256 channels',
            ['positions', 'pairs of channels', 'sorted sums'],
            concatenation,
        ),
    ]


def _concatenation_of_pairs(
    query: Tensor, key: Tensor, value: Tensor, scale: float
) -> Tensor:
    """As the formula stands: both halves side by side for every pair."""
    weight = query.new_full((query.shape[2] + key.shape[2],), scale)
    pairs = torch.cat(
        [
            query.unsqueeze(2).expand(-1, -1, key.shape[1], -1),
            key.unsqueeze(1).expand(-1, query.shape[1], -1, -1),
        ],
        dim=-1,
    )
    return torch.relu(pairs @ weight) @ value / key.shape[1]


def _concatenation_of_sums(
    query: Tensor, key: Tensor, value: Tensor, scale: float
) -> Tensor:
    query_score, key_score = (scale * t.sum(dim=2) for t in (query, key))
    return attention.concatenation_attention(query_score, key_score, value)


def _milliseconds(
    functions: list[Callable], inputs: list[Tensor], repeats: int
) -> list[float]:
    """Median of each, forward and backward."""

    def iterate(function: Callable) -> None:
        operands = [t.detach().requires_grad_() for t in inputs]
        out = function(*operands, 1 / 16)
        out.backward(out.detach())
        if out.is_cuda:
            torch.cuda.synchronize()

    turns = time_in_turns([partial(iterate, f) for f in functions], repeats, math.inf)
    return [1e3 * statistics.median(times) for times in turns]
