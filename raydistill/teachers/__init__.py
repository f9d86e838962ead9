"""Teachers: one float32 logit a pair, and the soft labels computed from the logits."""
