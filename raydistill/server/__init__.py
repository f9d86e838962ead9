"""A server: the scores of a bundle over HTTP."""
