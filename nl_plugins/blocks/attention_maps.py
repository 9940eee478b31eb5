"""What a block attends to, for looking at it.

Letters as in :mod:`nl_plugins.blocks.base`; ``Q`` is the number of query
positions that were chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .checks import SOFTMAX_MODES

if TYPE_CHECKING:
    from .base import NonLocalBlock


class AttentionWeights(NamedTuple):
    """What a block attends to, seen from chosen query positions.

    Attributes:
        pairwise (Tensor, optional): Shape ``(B, Q, *key size)``, the
            attention weight of every key position for each of the ``Q``
            queries, the mean of all heads. None where the block has no
            pairwise term.
        unary (Tensor, optional): Shape ``(B, *key size)``, the attention
            weight of every key position for all queries alike. None where
            the block has no separate unary term.
    """

    pairwise: Tensor | None
    unary: Tensor | None


@torch.no_grad()
def attention_weights(
    block: NonLocalBlock, x: Tensor, positions: Tensor
) -> AttentionWeights:
    """Attention weights of chosen query positions for all key positions.

    Takes ``O(Q * Nk)`` memory, not ``O(N * Nk)``.

    Args:
        block (NonLocalBlock): The block.
        x (Tensor): Its input, shape ``(B, C, *size)``.
        positions (Tensor): Integers of shape ``(Q, len(size))``, the indices
            of the query positions on the grid of ``x``, for instance (row,
            column), or (frame, row, column) of a clip.

    Returns:
        AttentionWeights: The weights that multiply the value: rows of a
        softmax, or ``f / Nk`` for the dot product and the concatenation; 0
        where a position does not attend (``axes``).

    Raises:
        ValueError: ``x`` does not fit the block, or a position lies outside
            of it.
    """
    features = block.layout.unfold(x)
    queries = _flat_indices(positions, features)
    size = block.key_size(features)
    keys = _grid(block, size, x.device)
    projections = block.project(features)
    # groups of positions, apart from the batch
    query, key, key_bias = (
        t if t is None else t.reshape(len(features), len(keys), *t.shape[1:])
        for t in (projections.query, projections.key, projections.key_bias)
    )
    pairwise = unary = None
    if block.has_pairwise_term:
        bias = None if block.has_unary_term else key_bias
        pairwise = _rows(
            block,
            query,
            key,
            bias,
            queries,
            keys,
            _grid(block, features.shape[2:], x.device),
        )
        pairwise = pairwise.reshape(*pairwise.shape[:2], *size)
    if block.has_unary_term:
        weights = key_bias.softmax(dim=-1).mean(dim=2)
        unary = torch.empty_like(weights.flatten(1))
        unary[:, keys.flatten()] = weights.flatten(1)
        unary = unary.reshape(-1, *size)
    return AttentionWeights(pairwise, unary)


def _flat_indices(positions: Tensor, features: Tensor) -> Tensor:
    """Positions on a grid as indices of the flattened grid."""
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


def _grid(block: NonLocalBlock, size: tuple[int, ...], device: torch.device) -> Tensor:
    """Flat indices of all positions, by groups, ``(G, N)``."""
    grid = torch.arange(torch.Size(size).numel(), device=device)
    return block.layout.split(grid.reshape(1, 1, *size), 1)[:, 0, :, 0]


def _rows(
    block: NonLocalBlock,
    query: Tensor,
    key: Tensor,
    key_bias: Tensor | None,
    queries: Tensor,
    keys: Tensor,
    grid: Tensor,
) -> Tensor:
    """Rows of the map, ``(B, Q, Nk)``."""
    # Where the queries have gone: their group, and the row in it.
    location = torch.empty_like(grid.flatten())
    location[grid.flatten()] = torch.arange(location.numel(), device=grid.device)
    group, row = (location[queries] // grid.shape[1], location[queries] % grid.shape[1])
    weights = query.new_zeros(len(query), len(queries), keys.numel())
    for index in group.unique():
        chosen = group == index
        found = _map(
            block,
            query[:, index][:, :, row[chosen]],
            key[:, index],
            None if key_bias is None else key_bias[:, index],
        )
        full = weights[:, chosen]
        full[..., keys[index]] = found.mean(dim=1).to(full.dtype)
        weights[:, chosen] = full
    return weights


def _map(
    block: NonLocalBlock, query: Tensor, key: Tensor, key_bias: Tensor | None
) -> Tensor:
    """The map of some queries, ``(B, h, Q, D)`` to ``(B, h, Q, Nk)``."""
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
