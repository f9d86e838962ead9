"""A trial: settings of a search, and what they gain."""
