"""Commands of their own: work that is no stage of a run."""
