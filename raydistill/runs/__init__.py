"""A run folder: where every output of a run lies, and what made it."""
