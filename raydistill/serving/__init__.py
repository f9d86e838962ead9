"""A score: load a bundle and score pairs on a CPU, with NumPy alone or NumPy and numba."""
