"""Transformer teachers: query and title pairs to token ids, token ids to one logit a pair."""
