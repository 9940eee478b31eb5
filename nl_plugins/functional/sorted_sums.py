r"""Sums with the weights :math:`\mathrm{ReLU}(a_i + b_j)`, without all pairs.

Sort the keys by falling :math:`b_j`. For every query, the keys with a
positive weight are then the first ones, and their sum is a difference of
prefix sums of :math:`v` and of :math:`b\,v`. This takes
:math:`O(N \log N + N D_v)` instead of :math:`O(N^2 D_v)`. Letters as in
:mod:`nl_plugins.functional.attention`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .derivatives import operator


def naive_relu_sums(query_score: Tensor, key_score: Tensor, value: Tensor) -> Tensor:
    """The sums from the weights of all pairs."""
    pairs = query_score.unsqueeze(2) + key_score.unsqueeze(1)
    return torch.relu(pairs) @ value


def traced_relu_sums(query_score: Tensor, key_score: Tensor, value: Tensor) -> Tensor:
    """The sums by sorting, in differentiable operations that can be traced."""
    key_score, order = key_score.sort(dim=1, descending=True)
    active = torch.searchsorted(-key_score.detach(), query_score.detach().contiguous())
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


def _forward(
    query_score: Tensor, key_score: Tensor, value: Tensor
) -> tuple[Tensor, ...]:
    return _sums(query_score, key_score, value)[:1]


def _gradients(
    query_score: Tensor, key_score: Tensor, value: Tensor, out: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The value's gradient is such a sum too, over the queries."""
    _, sorted_value, prefix = _sort(query_score, key_score, value)
    active = prefix(sorted_value.cumsum_(dim=1))
    query_score_grad = (grad * active).sum(dim=2)
    del active, sorted_value, prefix
    value_grad, active = _sums(key_score, query_score, grad)
    return query_score_grad, (value * active).sum(dim=2), value_grad


#: ``(query_score, key_score, value)`` to the sums.
relu_sums = operator(_forward, _gradients, naive_relu_sums)


def _sums(
    query_score: Tensor, key_score: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """``sum ReLU(a + b) v`` and ``sum (a + b > 0) v``, ``(B, Nq, Dv)``."""
    sorted_score, sorted_value, prefix = _sort(query_score, key_score, value)
    # Prefix sums of scores with a large common offset would cancel, and lose
    # digits. With the largest key score shifted to 0, no summand of a query
    # exceeds its largest weight.
    offset = sorted_score[:, :1]
    active = prefix(sorted_value.cumsum(dim=1))
    out = prefix(
        sorted_value.mul_((sorted_score - offset).unsqueeze(-1)).cumsum_(dim=1)
    )
    out.addcmul_((query_score + offset).unsqueeze(-1), active)
    # A NaN in the value reaches every query, also with a weight of 0.
    return out.add_(value.sum(dim=1, keepdim=True).mul_(0)), active


def _sort(
    query_score: Tensor, key_score: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """Sort by falling key score: scores, values, and a function.

    The function takes the cumulative sums of keys, ``(B, Nk, Dv)``, to those
    of the keys with ``a + b > 0``, ``(B, Nq, Dv)``.
    """
    sorted_score, order = key_score.sort(dim=1, descending=True)
    # -b rises along the keys, so the search counts the keys with -b < a.
    active = torch.searchsorted(-sorted_score, query_score.contiguous()).unsqueeze(-1)
    none = active == 0
    last = active.sub_(1).clamp_(min=0).expand(-1, -1, value.shape[2])

    def prefix(sums: Tensor) -> Tensor:
        return sums.gather(1, last).masked_fill_(none, 0)

    order = order.unsqueeze(-1).expand_as(value)
    return sorted_score, value.gather(1, order), prefix
