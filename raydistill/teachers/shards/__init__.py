"""A shard in `label`, for teachers of every kind: its texts, its logits. Imports no torch."""
