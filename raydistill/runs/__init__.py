"""A run folder: the paths of a run's outputs, and fingerprints of the inputs of each output."""
