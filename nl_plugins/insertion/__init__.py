"""Insert blocks at named places of a model."""

from .candidates import places
from .insert import blocks_of, inserted_blocks, side_of
from .with_blocks import WithBlocks, insert

__all__ = [
    'WithBlocks',
    'blocks_of',
    'insert',
    'inserted_blocks',
    'places',
    'side_of',
]
