"""What models cost, what they reached, and the comparison of both."""
