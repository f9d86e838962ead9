"""A score: load a bundle and score pairs on a CPU, with numpy and numba only."""
