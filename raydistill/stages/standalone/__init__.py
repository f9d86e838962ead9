"""A command of its own: work with Ray that is no stage of a run."""
