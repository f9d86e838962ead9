"""Quality of bundles on judged files without a run folder, and comparisons of runs or bundles."""
