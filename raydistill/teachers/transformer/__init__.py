"""A transformer: pairs to token ids, and those to a logit."""
