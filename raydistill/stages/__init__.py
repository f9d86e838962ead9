"""The stages of a run; only `stages/` and `cluster/` import Ray."""
