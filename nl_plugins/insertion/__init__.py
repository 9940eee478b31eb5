"""Insert blocks at named places of a model."""

from .with_blocks import WithBlocks, inserted_blocks, position_of

__all__ = ['WithBlocks', 'inserted_blocks', 'position_of']
