"""The blocks: modules that hold the weights and call the functional form."""

from .disentangled import (
    DisentangledNonLocal1d,
    DisentangledNonLocal2d,
    DisentangledNonLocal3d,
)
from .non_local import NonLocal1d, NonLocal2d, NonLocal3d

__all__ = [
    'DisentangledNonLocal1d',
    'DisentangledNonLocal2d',
    'DisentangledNonLocal3d',
    'NonLocal1d',
    'NonLocal2d',
    'NonLocal3d',
]
