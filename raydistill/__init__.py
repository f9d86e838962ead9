"""raydistill: distil BERT relevance models into a student that scores a pair in microseconds."""

__version__ = "0.1.0"
