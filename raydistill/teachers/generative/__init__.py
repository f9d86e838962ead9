"""Language models that score a pair by the tokens with which they would answer."""
