r"""Sums with weights :math:`ReLU(a_i + b_j)`, by sorting instead of pairing.

In the order of falling :math:`b_j` the keys that pass the ReLU are a prefix
for every query, so two prefix sums, of :math:`v` and of :math:`b\,v`, answer
all queries: :math:`O(N \log N + N D_v)`. The letters are those of
:mod:`nl_plugins.functional.attention`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .derivatives import operator


def explicit_relu_sums(query_score: Tensor, key_score: Tensor, value: Tensor) -> Tensor:
    """The formula as it stands, with the whole map of weights."""
    pairs = query_score.unsqueeze(2) + key_score.unsqueeze(1)
    return torch.relu(pairs) @ value


def recorded_relu_sums(query_score: Tensor, key_score: Tensor, value: Tensor) -> Tensor:
    """Sorted sums out of differentiable operations, for a graph."""
    key_score, order = key_score.sort(dim=1, descending=True)
    active = torch.searchsorted(-key_score.detach(), query_score.detach())
    offset = key_score[:, :1].detach()
    value = value.gather(1, order.unsqueeze(-1).expand_as(value))

    def prefix_sums(terms: Tensor) -> Tensor:
        # Row k of the padded sums is the sum of the first k terms.
        index = active.unsqueeze(-1).expand(-1, -1, terms.shape[2])
        return F.pad(terms.cumsum(dim=1), (0, 0, 1, 0)).gather(1, index)

    return (
        (query_score + offset).unsqueeze(-1) * prefix_sums(value)
        + prefix_sums((key_score - offset).unsqueeze(-1) * value)
        + 0 * value.sum(dim=1, keepdim=True)
    )


def _forward(query_score: Tensor, key_score: Tensor, value: Tensor) -> Tensor:
    return _sums(query_score, key_score, value)[0]


def _gradients(
    query_score: Tensor, key_score: Tensor, value: Tensor, out: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The value's gradient is such a sum itself, over the queries."""
    _, active = _sums(query_score, key_score, value, weighted=False)
    query_score_grad = (grad * active).sum(dim=2)
    del active
    value_grad, active = _sums(key_score, query_score, grad)
    return query_score_grad, (value * active).sum(dim=2), value_grad


#: ``(query_score, key_score, value)`` to the sums.
relu_sums = operator(_forward, _gradients, explicit_relu_sums)


def _sums(
    query_score: Tensor, key_score: Tensor, value: Tensor, weighted: bool = True
) -> tuple[Tensor | None, Tensor]:
    """``sum ReLU(a + b) v`` and ``sum (a + b > 0) v``, ``(B, Nq, Dv)``."""
    key_score, order = key_score.sort(dim=1, descending=True)
    # -b rises along the keys, so the search counts the keys with -b < a.
    active = torch.searchsorted(-key_score, query_score).unsqueeze(-1)
    none = active == 0
    last = active.sub_(1).clamp_(min=0).expand(-1, -1, value.shape[2])
    total = value.sum(dim=1, keepdim=True)
    value = value.gather(1, order.unsqueeze(-1).expand_as(value))

    def of_prefix(sums: Tensor) -> Tensor:
        return sums.gather(1, last).masked_fill_(none, 0)

    if not weighted:
        return None, of_prefix(value.cumsum_(dim=1))
    # Only the sums of the scores count, and what is large in both with
    # opposite signs would cancel between the prefix sums, digits and all.
    # With the largest key score at 0, nothing that is summed for a query
    # exceeds its largest weight.
    offset = key_score[:, :1]
    plain = of_prefix(value.cumsum(dim=1))
    out = of_prefix(value.mul_((key_score - offset).unsqueeze(-1)).cumsum_(dim=1))
    out.addcmul_((query_score + offset).unsqueeze(-1), plain)
    # A weight of 0 does not hide a value of NaN.
    return out.add_(total.mul_(0)), plain
