"""The blocks: modules with parameters that call ``nl_plugins.functional``."""

from .base import NonLocalBlock
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
    'NonLocalBlock',
]
