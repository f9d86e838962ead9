"""Stages of a run: with `cluster/` the only package that imports Ray."""
