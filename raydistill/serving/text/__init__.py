"""Text to words, sizes and hashes, in compiled functions that training and serving share."""
