"""A made-up shop: raw files for the demo and the tests."""
