"""A score: a bundle on a CPU, with numpy and numba alone."""
