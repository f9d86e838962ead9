"""The two passes of `prepare`: raw files to chunks, and chunks to shards."""
