"""A teacher: one float32 logit a pair, and the soft labels made of them."""
