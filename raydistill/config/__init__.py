"""A setting: the run file as validated, frozen objects."""
