"""Candidate pairs: titles found for a query, for users without a log of pairs."""
