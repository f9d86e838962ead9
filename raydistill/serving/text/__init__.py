"""Text to words, sizes and hashes, in compiled functions: what training and serving share."""
