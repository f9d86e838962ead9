"""What drove a score of a loaded bundle, and the nearest n-grams of a word."""
