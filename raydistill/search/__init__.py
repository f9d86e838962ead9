"""The hyperparameter search: space, sample, trials and results."""
