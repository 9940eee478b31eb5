"""Time and memory of the blocks, side by side with upstream's."""
