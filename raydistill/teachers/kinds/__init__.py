"""Kinds of teachers: what a run needs of each, one module a kind."""
