"""score: files of pairs to the same rows with scores."""
