"""Insert blocks at named places of a model."""

from .insert import inserted_blocks, side_of
from .with_blocks import WithBlocks, insert

__all__ = ['WithBlocks', 'insert', 'inserted_blocks', 'side_of']
