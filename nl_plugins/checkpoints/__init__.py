"""Checkpoint files: load, check and convert them, without running code in them."""
