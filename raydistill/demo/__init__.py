"""A fictitious shop: raw files for the demo and the tests."""
