"""The backends of an attention against each other, without projections.

Those of the softmax attention justify the rule of
:mod:`nl_plugins.functional.backends`.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ...functional import concatenation_attention, softmax_attention, use_backend
from ...functional.backends import BACKENDS, choose, with_heads
from ..measuring import time_in_turns
from ..tables import Table
from .measure import DTYPES, precision

#: Channels of key and value, whether query and key are one tensor, and numbers
#: of positions: on a CPU, and on a GPU.
CPU_HEADS = (
    (128, 128, False),
    (256, 256, False),
    (512, 256, False),
    (64, 512, False),
    (256, 256, True),
    (512, 256, True),
)
CPU_POSITIONS = (196, 784, 1568, 3136, 8192)
GPU_HEADS = (
    *((c, c, False) for c in (64, 128, 256, 512, 1024)),
    (256, 1024, False),
    (512, 256, True),
)
GPU_POSITIONS = (196, 784, 2048, 8192, 32768)


def compare_backends(
    device: str, dtypes: Sequence[str], phases: Sequence[str], repeats: int
) -> list[Table]:
    """Time every backend, one sample.

    Args:
        device (str): Where to run.
        dtypes (Sequence[str]): Names out of ``measure.DTYPES``.
        phases (Sequence[str]): ``'training'``, ``'inference'`` or both.
        repeats (int): Timed turns of each.

    Returns:
        list[Table]: Median milliseconds, with the backend that the rule
        chooses; and those of the two ways to compute the concatenation.
    """
    on_cpu = torch.device(device).type == 'cpu'
    rows = [
        _time_backends(device, dtype, phase, head, positions, repeats)
        for phase in phases
        for dtype in dtypes
        for head in (CPU_HEADS if on_cpu else GPU_HEADS)
        for positions in (CPU_POSITIONS if on_cpu else GPU_POSITIONS)
    ]
    concatenation = []
    for positions in (196, 768):
        inputs = [
            torch.randn(1, positions, 256, device=device, requires_grad=True)
            for _ in range(3)
        ]
        ways = [
            partial(_concatenation_of_pairs, *inputs),
            partial(_concatenation_of_sums, *inputs),
        ]
        pairs, sums = _milliseconds(ways, repeats)
        ratio = f'{sums:.2f} ms ({pairs / sums:.0f}x)'
        concatenation.append([str(positions), f'{pairs:.2f} ms', ratio])
    head = ['', 'type', 'key, value channels', 'positions', *BACKENDS, 'chosen']
    return [
        Table('Softmax attention', head, rows),
        Table(
            'Concatenation, 256 channels',
            ['positions', 'pairs of channels', 'sorted sums'],
            concatenation,
        ),
    ]


def _time_backends(
    device: str,
    dtype: str,
    phase: str,
    head: tuple[int, int, bool],
    positions: int,
    repeats: int,
) -> list[str]:
    """One row: the time of each backend, or why it did not run."""
    channels, value_channels, same = head
    train = phase == 'training'
    query, key, value = (
        torch.randn(1, c, positions, device=device, dtype=DTYPES[dtype]).mT
        for c in (channels, channels, value_channels)
    )
    if same:
        key = query
    for tensor in (query, key, value):
        tensor.requires_grad_(train)

    def run(name: str) -> None:
        with use_backend(name), torch.set_grad_enabled(train):
            out = softmax_attention(query, key, value, channels**-0.5)
        if train:
            torch.autograd.grad(out, (query, key, value)[same:], out.detach())

    cells, able = dict.fromkeys(BACKENDS, ''), []
    with precision(dtype):
        for name in BACKENDS:
            try:
                run(name)
                able.append(name)
            except ValueError:  # not for these operands
                cells[name] = '-'
            except RuntimeError:
                cells[name] = 'fails'
        times = _milliseconds([partial(run, name) for name in able], repeats)
        chosen = choose(*with_heads(query, key, value))[0]
    cells |= {name: f'{time:.2f} ms' for name, time in zip(able, times)}
    sizes = f'{channels}, {value_channels}{", query is key" if same else ""}'
    return [phase, dtype, sizes, str(positions), *cells.values(), chosen]


def _concatenation_of_pairs(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """As the formula stands: both halves side by side for every pair."""
    weight = query.new_full((query.shape[2] + key.shape[2],), 1 / 16)
    pairs = torch.cat(
        [
            query.unsqueeze(2).expand(-1, -1, key.shape[1], -1),
            key.unsqueeze(1).expand(-1, query.shape[1], -1, -1),
        ],
        dim=-1,
    )
    return torch.relu(pairs @ weight) @ value / key.shape[1]


def _concatenation_of_sums(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query_score, key_score = (t.sum(dim=2) / 16 for t in (query, key))
    return concatenation_attention(query_score, key_score, value)


def _milliseconds(functions: Sequence[Callable], repeats: int) -> list[float]:
    """Median of each."""

    def iterate(function: Callable) -> None:
        out = function()
        if out is not None:
            out.backward(out.detach())

    turns = time_in_turns([partial(iterate, f) for f in functions], repeats, math.inf)
    return [1e3 * statistics.median(times) for times in turns]
