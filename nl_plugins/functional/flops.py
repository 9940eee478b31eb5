"""FLOPs of the operators that the blocks run, for mmengine's analysis.

As in mmengine, a multiply-add counts as one, and elementwise operations
(additions, activations, exponentials) count as none.
"""

import math
from collections.abc import Callable
from math import prod
from typing import Any

from mmengine.analysis.jit_handles import get_shape


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    """Query times key, and attention weights times value."""
    (query, channels), (key, _), (_, value_channels) = (
        _shape_and_channels(v) for v in inputs[:3]
    )
    return prod(query[:-1]) * key[-2] * (channels + value_channels)


def _shape_and_channels(value: Any) -> tuple[list[int], int]:
    """Shape of an operand, and its channels without padding."""
    shape = get_shape(value)
    node = value.node()
    while node.kind() in ('aten::unsqueeze', 'aten::contiguous', 'aten::to'):
        node = next(node.inputs()).node()
    if node.kind() in ('aten::pad', 'aten::constant_pad_nd'):
        return shape, get_shape(next(node.inputs()))[-1]
    return shape, shape[-1]


def _cumulative_sum(inputs: list[Any], outputs: list[Any]) -> int:
    return prod(get_shape(inputs[0]))


def _sort(inputs: list[Any], outputs: list[Any]) -> int:
    """Comparisons along the sorted dimension."""
    shape = get_shape(inputs[0])
    length = max([1, *shape])
    for argument in inputs[1:]:
        dim = argument.toIValue()
        if type(dim) is int:
            length = max(shape[dim], 1) if shape else 1
    return prod(shape) * math.ceil(math.log2(length))


def _search(inputs: list[Any], outputs: list[Any]) -> int:
    """Comparisons of a binary search."""
    length = (get_shape(inputs[0]) or [1])[-1]
    return prod(get_shape(outputs[0])) * math.ceil(math.log2(max(length, 1)))


#: Handles by operator, for ``mmengine.analysis``.
FLOP_HANDLES: dict[str, Callable[[list[Any], list[Any]], int]] = {
    'aten::scaled_dot_product_attention': _attention,
    'aten::cumsum': _cumulative_sum,
    'aten::sort': _sort,
    'aten::searchsorted': _search,
}
