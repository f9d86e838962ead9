"""What `evaluate` measures: scorers of pairs, slices, other labels, costs; and its metrics.json."""
