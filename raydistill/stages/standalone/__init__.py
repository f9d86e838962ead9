"""Commands that are not a stage of a run."""
