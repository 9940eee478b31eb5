"""Pairwise functions of non-local attention, on plain tensors."""

from .attention import (
    concatenation_attention,
    dot_product_attention,
    softmax_attention,
)

__all__ = ['concatenation_attention', 'dot_product_attention', 'softmax_attention']
