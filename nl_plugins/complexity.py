"""FLOPs of the operators that the blocks run, for mmengine's analysis.

As in mmengine, a multiplication with its addition counts as one, and what
works on single elements (additions, activations, exponentials) not at all.
"""
import math
from collections.abc import Callable
from math import prod
from typing import Any

from mmengine.analysis.jit_handles import get_shape


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    """Query times key, and weights times value."""
    query, key, value = (get_shape(v) for v in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _cumulative_sum(inputs: list[Any], outputs: list[Any]) -> int:
    return prod(get_shape(inputs[0]))


def _sort(inputs: list[Any], outputs: list[Any]) -> int:
    """Comparisons."""
    shape = get_shape(inputs[0])
    return prod(shape) * math.ceil(math.log2(max(shape[-1], 1)))


def _search(inputs: list[Any], outputs: list[Any]) -> int:
    """Comparisons."""
    sorted_shape, shape = (get_shape(v) for v in inputs[:2])
    return prod(shape) * math.ceil(math.log2(max(sorted_shape[-1], 1)))


#: Handles by operator, for ``mmengine.analysis``.
FLOP_HANDLES: dict[str, Callable[[list[Any], list[Any]], int]] = {
    'aten::scaled_dot_product_attention': _attention,
    'aten::cumsum': _cumulative_sum,
    'aten::sort': _sort,
    'aten::searchsorted': _search,
}
