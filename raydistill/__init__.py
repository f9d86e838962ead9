"""raydistill: distil BERT relevance models into a student that scores a pair in microseconds."""

__version__ = "0.1.0"
# Of bundles, and of the features that students and trees read: a model of others is stale.
FORMAT = 9
