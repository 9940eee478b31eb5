"""The attention weights of a block, for analysis and plots.

Letters as in :mod:`nl_plugins.blocks.base`; ``Q`` is the number of selected
query positions.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .checks import SOFTMAX_MODES

#: A NonLocalBlock, whose module imports this one.
Block = Any


class AttentionWeights(NamedTuple):
    """Attention weights of selected query positions, the mean of all heads.

    Attributes:
        pairwise (Tensor, optional): Shape ``(B, Q, *key size)``, the
            attention weight of every key position for each of the ``Q``
            queries. None if the block has no pairwise term.
        unary (Tensor, optional): Shape ``(B, *key size)``, the attention
            weight of every key position, the same for all queries. None if
            the block has no separate unary term.
    """

    pairwise: Tensor | None
    unary: Tensor | None


@torch.no_grad()
def attention_weights(block: Block, x: Tensor, positions: Tensor) -> AttentionWeights:
    """Compute the attention weights of selected query positions.

    It takes ``O(Q * Nk)`` memory, not ``O(N * Nk)``.

    Args:
        block (NonLocalBlock): The block.
        x (Tensor): Its input, shape ``(B, C, *size)``.
        positions (Tensor): Integers of shape ``(Q, len(size))``, the indices
            of the query positions on the grid of ``x``, for instance (row,
            column), or (frame, row, column) of a clip.

    Returns:
        AttentionWeights: The factors of the value: rows of a softmax, or
        ``f / Nk`` for the dot product and the concatenation; 0 outside of
        the group of the query (``axes``, ``group_size``).

    Raises:
        ValueError: If ``x`` has the wrong rank, channels or sizes, or a
            position is not inside of it.
    """
    features = block.layout.unfold(x)
    queries = _flat_indices(positions, features)
    size = block.key_size(features)
    keys = _grid(block, size, x.device)
    projections = block.project(features)
    # Separate the groups of positions from the batch.
    query, key, key_bias = (
        t if t is None else t.reshape(len(features), len(keys), *t.shape[1:])
        for t in (projections.query, projections.key, projections.key_bias)
    )
    pairwise = unary = None
    if block.has_pairwise_term:
        assert query is not None and key is not None
        pairwise = _rows(
            block,
            query,
            key,
            None if block.has_unary_term else key_bias,
            queries,
            keys,
            _grid(block, features.shape[2:], x.device),
        )
        pairwise = pairwise.reshape(*pairwise.shape[:2], *size)
    if block.has_unary_term:
        assert key_bias is not None
        weights = key_bias.softmax(dim=-1).mean(dim=2).flatten(1)
        unary = torch.empty_like(weights)
        unary[:, keys.flatten()] = weights
        unary = unary.reshape(-1, *size)
    return AttentionWeights(pairwise, unary)


def _flat_indices(positions: Tensor, features: Tensor) -> Tensor:
    """Check positions and return their indices on the flattened grid."""
    size = features.shape[2:]
    integers = not (
        positions.is_floating_point()
        or positions.is_complex()
        or positions.dtype == torch.bool
    )
    positions = positions.to(features.device, torch.long)
    if (
        not integers
        or positions.dim() != 2
        or positions.shape[1] != len(size)
        or (positions < 0).any()
        or (positions >= positions.new_tensor(size)).any()
    ):
        raise ValueError(
            f'positions must have the shape (Q, {len(size)}), integers '
            f'inside of {tuple(size)}, but got {positions.tolist()}'
        )
    strides = [size[d + 1 :].numel() for d in range(len(size))]
    return (positions * positions.new_tensor(strides)).sum(dim=1)


def _grid(block: Block, size: tuple[int, ...], device: torch.device) -> Tensor:
    """Indices of all positions of one sample, by group."""
    grid = torch.arange(torch.Size(size).numel(), device=device)
    return block.layout.split(grid.reshape(1, 1, *size), 1)[:, 0, :, 0]


def _rows(
    block: Block,
    query: Tensor,
    key: Tensor,
    key_bias: Tensor | None,
    queries: Tensor,
    keys: Tensor,
    grid: Tensor,
) -> Tensor:
    """Rows of the attention map, ``(B, Q, Nk)``."""
    # The group of each query, and its row in the group.
    location = torch.empty_like(grid.flatten())
    location[grid.flatten()] = torch.arange(location.numel(), device=grid.device)
    group, row = location[queries] // grid.shape[1], location[queries] % grid.shape[1]
    weights = query.new_zeros(len(query), len(queries), keys.numel())
    for index in group.unique():
        inside = group == index
        group_weights = _map(
            block,
            query[:, index][:, :, row[inside]],
            key[:, index],
            None if key_bias is None else key_bias[:, index],
        )
        rows = weights[:, inside]
        rows[..., keys[index]] = group_weights.mean(dim=1).to(rows.dtype)
        weights[:, inside] = rows
    return weights


def _map(block: Block, query: Tensor, key: Tensor, key_bias: Tensor | None) -> Tensor:
    """Attention weights of queries ``(B, h, Q, D)``, ``(B, h, Q, Nk)``."""
    if block.mode == 'concatenation':
        query_score, key_score = block.scores(query, key)
        logits = torch.relu(query_score.unsqueeze(-1) + key_score.unsqueeze(-2))
    else:
        logits = query @ key.transpose(-1, -2)
    if block.mode not in SOFTMAX_MODES:
        return logits / logits.shape[-1]
    logits = block.logit_scale * logits
    if key_bias is not None:
        logits = logits + key_bias.unsqueeze(-2)
    return logits.softmax(dim=-1)
