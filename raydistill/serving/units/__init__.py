"""Numbers and their units in one spelling, compiled for training and serving."""
