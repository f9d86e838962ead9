"""Metrics of scores against labels, and their resampling over queries."""
