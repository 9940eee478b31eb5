"""The forms of a pairwise function against each other, without projections.

Those of the softmax justify the rule by which
:func:`nl_plugins.functional.softmax_attention` chooses.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ...functional import attention
from ...functional.chunked import (
    chunked_softmax_attention,
    naive_softmax_attention,
)

#: Channels of key and value, and numbers of positions.
HEADS = ((128, 128), (256, 256), (512, 256), (64, 512))
POSITIONS = (196, 784, 1568, 3136, 8192)

_FORMS = dict(
    naive=naive_softmax_attention,
    fused=attention._fused_softmax_attention,
    chunked=chunked_softmax_attention,
)


def compare_forms(device: str, repeats: int) -> str:
    """Time every form, forward and backward, fp32.

    Args:
        device (str): Where to run.
        repeats (int): Timed turns of each.

    Returns:
        str: A Markdown table of milliseconds, with the form that the rule
        chooses.
    """
    lines = [
        '| key, value channels | positions | ' + ' | '.join(_FORMS) + ' | chosen |',
        '|---|---:|---:|---:|---:|---|',
    ]
    for channels, value_channels in HEADS:
        for positions in POSITIONS:
            inputs = [
                torch.randn(1, c, positions, device=device).mT
                for c in (channels, channels, value_channels)
            ]
            chosen = attention._softmax_backend(*inputs)
            seconds = _time(list(_FORMS.values()), inputs, repeats)
            cells = (f'{1e3 * s:.2f} ms' for s in seconds)
            lines.append(
                f'| {channels}, {value_channels} | {positions} | '
                f'{" | ".join(cells)} | {chosen} |'
            )
    lines += [
        '',
        '| concatenation | pairs of channels | sorted sums |',
        '|---|---:|---:|',
    ]
    for positions in (196, 768):
        inputs = [torch.randn(1, positions, 256, device=device) for _ in range(3)]
        pairs, sums = _time(
            [_concatenation_of_pairs, _concatenation_of_sums], inputs, repeats
        )
        lines.append(
            f'| {positions} positions, 256 channels | '
            f'{1e3 * pairs:.2f} ms | {1e3 * sums:.2f} ms '
            f'({pairs / sums:.0f}x) |'
        )
    return '\n'.join(lines)


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
    scores = (scale * t.sum(dim=2) for t in (query, key))
    return attention.concatenation_attention(*scores, value)


def _time(forms: list[Callable], inputs: list[Tensor], repeats: int) -> list[float]:
    """Median seconds of each, in turns."""

    def iterate(form: Callable) -> float:
        operands = [t.detach().requires_grad_() for t in inputs]
        start = time.perf_counter()
        out = form(*operands, 1 / 16)
        out.backward(out.detach())
        if out.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    seconds = [[] for _ in forms]
    for form in forms:
        iterate(form)
    for _ in range(repeats):
        for form, times in zip(forms, seconds):
            times.append(iterate(form))
    return [statistics.median(times) for times in seconds]
