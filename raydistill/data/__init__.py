"""A pair: raw rows become clean, distinct pairs in shards."""
