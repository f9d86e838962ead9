"""Scorers side by side: metrics with intervals, retention, differences, slices and distributions.

What comes out has the form of `metrics.json`, from which the report is written.
"""
