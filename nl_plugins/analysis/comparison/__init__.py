"""Models beside their baseline: what they cost and what they reached."""
