"""Pairwise functions of non-local attention, on plain tensors."""

from .attention import (
    concatenation_attention,
    dot_product_attention,
    softmax_attention,
)
from .backends import explain_backend, use_backend

__all__ = [
    'concatenation_attention',
    'dot_product_attention',
    'explain_backend',
    'softmax_attention',
    'use_backend',
]
