"""Reading checkpoint files, which are data: nothing in them is executed."""
