r"""The pairwise functions of non-local attention, on plain tensors.

Each function computes, for all queries :math:`i`,

.. math:: y_i = \frac{1}{C(x)} \sum_j f(x_i, x_j)\, g(x_j)

(`Non-local Neural Networks <https://arxiv.org/abs/1711.07971>`_, eq. 1)
exactly, without a large ``Nq x Nk`` attention map in memory.

Letters used in this file: ``B`` batch (or several dimensions of it, such as
samples and heads), ``Nq`` query positions, ``Nk`` key positions, ``D``
channels of query and key, ``Dv`` channels of the value.
"""

from contextlib import nullcontext

import torch
from torch import Tensor

from .backends import (
    BACKENDS,
    choose,
    has_tangent,
    in_one_type,
    with_heads,
    without_autocast,
)
from .sorted_sums import naive_relu_sums, relu_sums, traced_relu_sums


def softmax_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    key_bias: Tensor | None = None,
) -> Tensor:
    r"""Attention with a softmax over the keys.

    .. math:: y_i = \sum_j \mathrm{softmax}_j(s\, q_i^T k_j + c_j)\, v_j

    It is the Gaussian and the embedded Gaussian function (eq. 2 and 3) and
    the whitened pairwise term of the disentangled block. Memory is linear in
    the number of positions: the function calls PyTorch's fused kernels or
    works in chunks of queries, and builds the attention map only where it is
    a small multiple of the operands. Half precision input is multiplied and
    summed in float32.

    Forward-mode and second derivatives build the attention map. PyTorch's
    fused kernels have no second derivative, except inside of
    ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``.

    Args:
        query (Tensor): Shape ``(B, Nq, D)``.
        key (Tensor): Shape ``(B, Nk, D)``.
        value (Tensor): Shape ``(B, Nk, Dv)``.
        scale (float): Factor :math:`s` of the logits, not 0.
        key_bias (Tensor, optional): Shape ``(B, Nk)``, the term :math:`c_j`
            of the logits. Defaults to None, no such term.

    Returns:
        Tensor: Shape ``(B, Nq, Dv)``, in the dtype of ``value``.

    Raises:
        ValueError: If the shapes do not match.
    """
    _check_shapes(query, key, value)
    if key_bias is not None:
        if key_bias.shape != key.shape[:-1]:
            raise ValueError(
                'key_bias must have the shape (B, Nk) = '
                f'{tuple(key.shape[:-1])}, but got {tuple(key_bias.shape)}'
            )
        # The bias is one more channel: a mask that needs a gradient would
        # disable the fused kernel.
        query = torch.cat([query, torch.ones_like(query[..., :1])], dim=-1)
        key = torch.cat([key, (key_bias / scale).unsqueeze(-1)], dim=-1)
    shape = *query.shape[:-1], value.shape[-1]
    dtype = value.dtype
    query, key, value = with_heads(query, key, value)
    name, _ = choose(query, key, value)
    # The fused kernel takes what autocast makes of its operands.
    with without_autocast(value) if name != 'fused' else nullcontext():
        out = BACKENDS[name].run(query, key, value, scale)
    return out.reshape(shape).to(dtype)


def dot_product_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    r"""Attention with plain dot products as attention weights.

    .. math:: y_i = \frac{1}{N_k} \sum_j (q_i^T k_j)\, v_j

    (eq. 4, with :math:`C(x) = N_k`). The product is evaluated in the cheaper
    order: :math:`q\,(k^T v)`, linear in the number of positions, or
    :math:`(q\,k^T)\,v` where there are fewer positions than channels. Half
    precision input is multiplied and summed in float32.

    Args:
        query (Tensor): Shape ``(B, Nq, D)``.
        key (Tensor): Shape ``(B, Nk, D)``.
        value (Tensor): Shape ``(B, Nk, Dv)``.

    Returns:
        Tensor: Shape ``(B, Nq, Dv)``, in the dtype of ``value``.

    Raises:
        ValueError: If the shapes do not match.
    """
    _check_shapes(query, key, value)
    queries, channels = query.shape[-2:]
    keys, value_channels = value.shape[-2:]
    dtype = value.dtype
    # A root before and one after the sum: in half precision, a sum that is not
    # divided overflows, and a key that is divided twice loses digits.
    root = keys**0.5
    through_channels = channels * value_channels * (queries + keys)
    through_positions = queries * keys * (channels + value_channels)
    with without_autocast(query):
        query, key, value = in_one_type(query, key, value)
        key = key / root
        # A traced graph takes the order that is linear in its input sizes.
        if (
            torch.compiler.is_compiling()
            or torch.onnx.is_in_onnx_export()
            or through_channels <= through_positions
        ):
            out = query @ (key.transpose(-2, -1) @ value / root)
        else:
            out = (query @ key.transpose(-2, -1) / root) @ value
    return out.to(dtype)


def concatenation_attention(
    query_score: Tensor, key_score: Tensor, value: Tensor
) -> Tensor:
    r"""Attention with the concatenation function.

    .. math::
        y_i = \frac{1}{N_k} \sum_j \mathrm{ReLU}(a_i + b_j)\, v_j

    (eq. 5: :math:`w_f^T [\theta_i, \phi_j]` is the sum of a score
    :math:`a_i` of the query and a score :math:`b_j` of the key). It takes
    :math:`O(N \log N + N D_v)` time; :mod:`.sorted_sums` says how.

    The subgradient at a sum of exactly 0 is 0, as in PyTorch's ReLU. Half
    precision input is summed in float32.

    Args:
        query_score (Tensor): :math:`a`, shape ``(B, Nq)``.
        key_score (Tensor): :math:`b`, shape ``(B, Nk)``.
        value (Tensor): Shape ``(B, Nk, Dv)``.

    Returns:
        Tensor: Shape ``(B, Nq, Dv)``, in the dtype of ``value``.

    Raises:
        ValueError: If the shapes do not match.
    """
    if (
        value.dim() < 3
        or key_score.shape != value.shape[:-1]
        or query_score.shape[:-1] != value.shape[:-2]
    ):
        raise ValueError(
            'query_score, key_score and value must have the shapes (B, Nq), '
            f'(B, Nk) and (B, Nk, Dv), but got {tuple(query_score.shape)}, '
            f'{tuple(key_score.shape)} and {tuple(value.shape)}'
        )
    if value.dim() > 3:
        out = concatenation_attention(
            query_score.flatten(0, -2), key_score.flatten(0, -2), value.flatten(0, -3)
        )
        return out.reshape(*query_score.shape, value.shape[-1])
    dtype = torch.promote_types(value.dtype, torch.float32)
    tensors = [t.to(dtype) for t in (query_score, key_score, value)]
    if torch.onnx.is_in_onnx_export():  # ONNX has no searchsorted
        sums = naive_relu_sums
    elif (
        torch.compiler.is_compiling() or torch.jit.is_tracing() or has_tangent(*tensors)
    ):
        sums = traced_relu_sums
    else:
        sums = relu_sums
    with without_autocast(value):
        out = sums(*tensors)
    return (out / value.shape[1]).to(value.dtype)


def _check_shapes(query: Tensor, key: Tensor, value: Tensor) -> None:
    if (
        value.dim() < 3
        or key.shape[:-1] != value.shape[:-1]
        or query.shape[:-2] != key.shape[:-2]
        or query.shape[-1] != key.shape[-1]
    ):
        raise ValueError(
            'query, key and value must have the shapes (B, Nq, D), '
            f'(B, Nk, D) and (B, Nk, Dv), but got {tuple(query.shape)}, '
            f'{tuple(key.shape)} and {tuple(value.shape)}'
        )
