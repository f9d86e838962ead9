"""A raw file: what kind it is, and its rows as tables."""
