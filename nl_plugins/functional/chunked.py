"""Softmax attention in chunks of queries, exact and with its gradients.

For what PyTorch's fused kernels do not accept or are slow at: different
numbers of channels of key and value on the CPU, float64 on a GPU. Letters as
in :mod:`nl_plugins.functional.attention`.

Measured forward and backward on a CPU (one thread, torch 2.13), at 4096 and
8192 positions with 256 and 128, and 512 and 256 channels of key and value:
13 to 18 % less time than the fused kernel with a padded value, and between
2 MB less and 24 MB more memory.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .derivatives import operator

#: Attention weights in memory at once: few enough for a cache, enough for
#: efficient matrix products.
CHUNK = 2**22
#: A map counts as small up to this multiple of the size of key and value.
SMALL = 4


def naive_softmax_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float
) -> Tensor:
    """Softmax attention that builds the whole attention map."""
    weights = ((scale * query) @ key.transpose(1, 2)).softmax(dim=-1)
    return weights @ value


def _forward(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    out = value.new_empty(*query.shape[:2], value.shape[2])
    for batch, rows, (weights,) in _chunks(query, key, value, 1):
        _softmax(query[batch, rows], key[batch], scale, weights)
        torch.mm(weights, value[batch], out=out[batch, rows])
    return out


def _gradients(
    query: Tensor, key: Tensor, value: Tensor, out: Tensor, grad: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Gradients from attention weights that are recomputed chunk by chunk.

    With :math:`P = softmax(s\,q k^T)` and :math:`dP = dy\,v^T` the gradient
    of the logits is :math:`P \circ (dP - (dy \circ y)\,1)`.
    """
    query_grad, key_grad, value_grad = (
        torch.empty_like(query),
        torch.zeros_like(key),
        torch.zeros_like(value),
    )
    grad = grad.contiguous()
    for batch, rows, (weights, logits_grad) in _chunks(query, key, value, 2):
        dy = grad[batch, rows]
        _softmax(query[batch, rows], key[batch], scale, weights)
        value_grad[batch].addmm_(weights.t(), dy)
        torch.mm(dy, value[batch].t(), out=logits_grad)
        logits_grad -= (dy * out[batch, rows]).sum(dim=1, keepdim=True)
        logits_grad *= weights
        torch.mm(logits_grad, key[batch], out=query_grad[batch, rows])
        key_grad[batch].addmm_(logits_grad.t(), query[batch, rows])
    query_grad *= scale
    key_grad *= scale
    return query_grad, key_grad, value_grad


#: ``(query, key, value, scale)`` to the attended values.
chunked_softmax_attention = operator(_forward, _gradients, naive_softmax_attention)


def _chunks(
    query: Tensor, key: Tensor, value: Tensor, buffers: int
) -> Iterator[tuple[int, slice, list[Tensor]]]:
    """Yield the sample, its rows of queries, and buffers for their rows."""
    batch, queries, channels = query.shape
    _, keys, value_channels = value.shape
    size = min(queries, CHUNK // max(keys, 1), SMALL * (channels + value_channels))
    size = max(size, 1)
    storage = [query.new_empty(size, keys) for _ in range(buffers)]
    for sample in range(batch):
        for start in range(0, queries, size):
            stop = min(start + size, queries)
            yield (
                sample,
                slice(start, stop),
                [buffer[: stop - start] for buffer in storage],
            )


def _softmax(query: Tensor, key: Tensor, scale: float, out: Tensor) -> None:
    torch.addmm(out, query, key.t(), beta=0, alpha=scale, out=out)
    torch.softmax(out, dim=-1, out=out)
