"""A raw input file: its format, and its rows as Arrow tables."""
