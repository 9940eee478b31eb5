"""Softmax attention in chunks of queries, exact and with its gradients.

For what PyTorch's fused kernels do not accept or are slow at: different
numbers of channels of key and value on a CPU; float32, float64 and more than
256 channels on a GPU. Letters as in :mod:`nl_plugins.functional.attention`.

Measured forward and backward on a CPU (one thread, torch 2.13), at 4096 and
8192 positions with 256 and 128, and 512 and 256 channels of key and value:
13 to 18 % less time than the fused kernel with a padded value, and between
2 MB less and 24 MB more memory.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .derivatives import operator

#: Attention weights in memory at once: on a CPU few enough for a cache, on a
#: GPU (128 MiB in float32) enough to occupy it, both enough for efficient
#: products.
CPU_CHUNK, GPU_CHUNK = 2**22, 2**25
#: A map counts as small up to this multiple of the size of key and value.
SMALL = 4


def naive_softmax_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float
) -> Tensor:
    """Softmax attention that builds the whole attention map.

    The products stay in the type of the operands. The softmax is computed in
    float32, and its weights are rounded to the type of the value.
    """
    logits = (scale * query) @ key.transpose(-2, -1)
    # A half precision softmax would round before it divides.
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.softmax(dim=-1, dtype=dtype).to(value.dtype) @ value


def _forward(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor]:
    out = value.new_empty(*query.shape[:2], value.shape[2])
    for samples, rows, (weights,) in _chunks(query, key, value, 1):
        _softmax(query[samples, rows], key[samples], scale, weights)
        out[samples, rows] = torch.bmm(weights.to(value.dtype), value[samples])
    return (out,)


def _gradients(
    query: Tensor, key: Tensor, value: Tensor, out: Tensor, grad: Tensor, scale: float
) -> tuple[Tensor, ...]:
    r"""Gradients from attention weights that are recomputed chunk by chunk.

    With :math:`P = softmax(s\,q k^T)` and :math:`dP = dy\,v^T` the gradient
    of the logits is :math:`P \circ (dP - (P \circ dP)\,1)`. Those of key and
    value are summed in float32 at least.
    """
    dtype = torch.promote_types(value.dtype, torch.float32)
    query_grad = torch.empty_like(query)
    key_grad = torch.zeros_like(key, dtype=dtype)
    value_grad = torch.zeros_like(value, dtype=dtype)
    grad = grad.contiguous()
    for samples, rows, (weights, logits_grad) in _chunks(query, key, value, 2):
        q, dy = query[samples, rows], grad[samples, rows]
        _softmax(q, key[samples], scale, weights)
        p = weights.to(dy.dtype).transpose(1, 2)
        _product(p, dy, 1, value_grad[samples], beta=1)
        _product(dy, value[samples].transpose(1, 2), 1, logits_grad)
        torch.ops.aten._softmax_backward_data.out(
            logits_grad, weights, -1, dtype, grad_input=logits_grad
        )
        ds = logits_grad.to(q.dtype)
        dq = query_grad[samples, rows]
        torch.baddbmm(dq, ds, key[samples], beta=0, alpha=scale, out=dq)
        _product(ds.transpose(1, 2), q, scale, key_grad[samples], beta=1)
    return query_grad, key_grad.to(key.dtype), value_grad.to(value.dtype)


#: ``(query, key, value, scale)`` to the attended values.
chunked_softmax_attention = operator(_forward, _gradients, naive_softmax_attention)


def chunk_rows(query: Tensor, key: Tensor, value: Tensor) -> tuple[int, int]:
    """Samples and rows of queries of one chunk.

    A CPU takes one sample, whose rows fit into a cache; a GPU all samples at
    once, to be occupied.
    """
    batch, queries, channels = query.shape
    keys, value_channels = value.shape[1:]
    if query.device.type == 'cpu':
        samples = min(batch, 1)
        rows = min(CPU_CHUNK // max(keys, 1), SMALL * (channels + value_channels))
    else:
        samples = batch
        rows = GPU_CHUNK // max(batch * keys, 1)
    return samples, max(min(queries, rows), 1)


def _chunks(
    query: Tensor, key: Tensor, value: Tensor, buffers: int
) -> Iterator[tuple[slice, slice, list[Tensor]]]:
    """Yield the samples, their rows of queries, and buffers for their rows."""
    (batch, queries), keys = query.shape[:2], key.shape[1]
    samples, size = chunk_rows(query, key, value)
    dtype = torch.promote_types(value.dtype, torch.float32)
    storage = [
        query.new_empty(samples * size * keys, dtype=dtype) for _ in range(buffers)
    ]
    for sample in range(0, batch, max(samples, 1)):
        for start in range(0, queries, size):
            shape = samples, min(size, queries - start), keys
            yield (
                slice(sample, sample + samples),
                slice(start, start + size),
                [
                    buffer[: shape[0] * shape[1] * keys].view(shape)
                    for buffer in storage
                ],
            )


def _softmax(query: Tensor, key: Tensor, scale: float, out: Tensor) -> None:
    _product(query, key.transpose(1, 2), scale, out)
    torch.softmax(out, dim=-1, out=out)


def _product(a: Tensor, b: Tensor, scale: float, out: Tensor, beta: int = 0) -> None:
    """Write ``beta * out + scale * a @ b``, not rounded to half precision."""
    baddbmm = torch.baddbmm if a.dtype == out.dtype else _baddbmm_of_halves
    baddbmm(out, a, b, beta=beta, alpha=scale, out=out)


def _baddbmm_of_halves(
    total: Tensor, a: Tensor, b: Tensor, beta: int, alpha: float, out: Tensor
) -> None:
    """``torch.baddbmm`` of half precision operands, in float32 if PyTorch has it."""
    if a.is_cuda and _HAS_OUT_DTYPE:
        torch.baddbmm(total, a, b, out.dtype, beta=beta, alpha=alpha, out=out)
    else:
        before = total if beta else total.zero_()
        torch.add(before, torch.bmm(a, b), alpha=alpha, out=out)


#: From PyTorch 2.8 on.
_HAS_OUT_DTYPE = 'dtype_out' in torch.ops.aten.baddbmm.overloads()
