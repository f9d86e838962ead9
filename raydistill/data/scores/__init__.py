"""Scores from files: their columns, and the index by which the pairs of a shard are looked up."""
