"""A student: its network, its training, and the arrays that a bundle holds."""
