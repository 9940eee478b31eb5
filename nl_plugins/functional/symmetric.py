r"""Softmax attention of features to themselves, with half of the logits.

Where query and key are the same tensor (the Gaussian function, a shared
projection), the logits :math:`s\,x_i^T x_j` are symmetric. A chunk of rows is
computed from its own columns on, and serves twice: along its rows for its own
queries, along its columns for all later queries. The queries normalize as
they go (`Online normalizer calculation for softmax
<https://arxiv.org/abs/1805.02867>`_).

Both passes take half of the products of query and key, and the backward half
of the products for their gradients. Measured forward and backward on a CPU
(one thread, torch 2.13), at 784, 1568 and 4096 positions: 10, 18 and 24 % less
time than with the whole map (512 and 256 channels of key and value), 3 to
17 % less (256 and 256). On another CPU (two threads) it took 30 % more, the
same and 23 % less at 784, 1568 and 3136 positions (512 and 256).

Letters as in :mod:`nl_plugins.functional.attention`.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .chunked import naive_softmax_attention
from .derivatives import operator

#: Most rows of a chunk: enough for efficient products, few beside all rows.
ROWS = 256


def _forward(features: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The attended values, and the logarithms of the sums of exponentials."""
    out = torch.zeros_like(value)
    largest = value.new_full(value.shape[:2], -torch.inf)
    total = torch.zeros_like(largest)

    def add(logits: Tensor, weights: Tensor, keys: Tensor, queries: tuple) -> None:
        """Add to queries what they attend to; logits are ``(queries, keys)``."""
        before = largest[queries]
        after = torch.maximum(before, logits.amax(dim=1))
        _exp_(torch.sub(logits, after.unsqueeze(1), out=weights))
        shrink = _exp_(before - after)
        total[queries].mul_(shrink).add_(weights.sum(dim=1))
        out[queries].mul_(shrink.unsqueeze(1)).addmm_(weights, keys)
        before.copy_(after)

    for sample, rows, own, later, (logits, weights) in _chunks(features, value, 2):
        x = features[sample]
        torch.addmm(
            logits, x[rows], x[rows.start :].t(), beta=0, alpha=scale, out=logits
        )
        add(logits, weights, value[sample, rows.start :], (sample, rows))
        # The columns after the chunk's own, which are rows of later chunks.
        add(
            logits[:, own:].t(),
            weights[:, own:].t(),
            value[sample, rows],
            (sample, later),
        )
    out /= total.unsqueeze(2)
    return out, largest + total.log()


def _gradients(
    features: Tensor,
    value: Tensor,
    out: Tensor,
    normalizer: Tensor,
    grad: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    r"""Gradients from attention weights that are recomputed chunk by chunk.

    The logits' gradient :math:`dS` is not symmetric, but only
    :math:`dS + dS^T` is needed: it is that of the features, times themselves.
    """
    features_grad, value_grad = torch.zeros_like(features), torch.zeros_like(value)
    grad = grad.contiguous()
    mean = (grad * out).sum(dim=2)
    for sample, rows, own, later, buffers in _chunks(features, value, 3):
        logits, weights, logits_grad = buffers
        x, v, dy = features[sample], value[sample], grad[sample]
        columns = slice(rows.start, None)
        torch.addmm(logits, x[rows], x[columns].t(), beta=0, alpha=scale, out=logits)
        # Along the rows: the chunk's queries, and all keys from its own on.
        _exp_(torch.sub(logits, normalizer[sample, rows].unsqueeze(1), out=weights))
        value_grad[sample, columns].addmm_(weights.t(), dy[rows])
        torch.mm(dy[rows], v[columns].t(), out=logits_grad)
        logits_grad.sub_(mean[sample, rows].unsqueeze(1)).mul_(weights)
        logits_grad[:, :own] += logits_grad[:, :own].t().clone()
        # Along the columns: the later queries, and the chunk's keys.
        logits, weights = logits[:, own:], weights[:, own:]
        _exp_(torch.sub(logits, normalizer[sample, later], out=weights))
        value_grad[sample, rows].addmm_(weights, dy[later])
        torch.mm(v[rows], dy[later].t(), out=logits)
        logits_grad[:, own:].addcmul_(logits.sub_(mean[sample, later]), weights)
        features_grad[sample, rows].addmm_(logits_grad, x[columns])
        features_grad[sample, later].addmm_(logits_grad[:, own:].t(), x[rows])
    features_grad *= scale
    return features_grad, value_grad


def _naive(features: Tensor, value: Tensor, scale: float) -> Tensor:
    return naive_softmax_attention(features, features, value, scale)


#: ``(features, value, scale)`` to the attended values.
symmetric_softmax_attention = operator(_forward, _gradients, _naive, outputs=2)


def chunk_rows(positions: int) -> int:
    """Rows of a chunk: at most ``ROWS``, and an eighth of the positions.

    What is computed twice is a chunk's square.
    """
    return min(ROWS, -(-positions // 8))


def _chunks(
    features: Tensor, value: Tensor, buffers: int
) -> Iterator[tuple[int, slice, int, slice, list[Tensor]]]:
    """Yield the sample, its rows, how many, all later rows, and buffers.

    The buffers are ``(rows, rows and all later)``.
    """
    batch, positions, _ = features.shape
    size = chunk_rows(positions)
    storage = [features.new_empty(size * positions) for _ in range(buffers)]
    for sample in range(batch):
        for start in range(0, positions, size):
            stop = min(start + size, positions)
            shape = stop - start, positions - start
            yield (
                sample,
                slice(start, stop),
                stop - start,
                slice(stop, positions),
                [t[: shape[0] * shape[1]].view(shape) for t in storage],
            )


def _exp_(differences: Tensor) -> Tensor:
    """Exponentials of differences to a maximum, in place.

    Below ``exp(-60)``, which is 0 beside 1 in every type, a CPU takes ten
    times as long to compute numbers that underflow, and to multiply them.
    """
    return differences.clamp_(min=-60).exp_()
