"""A pair: raw rows to clean, distinct pairs in shards."""
