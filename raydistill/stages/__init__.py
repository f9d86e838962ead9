"""The stages: the only files with Ray in them, besides cluster.py."""
