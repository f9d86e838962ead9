"""The student: its network, its training, and the arrays of its bundle."""
