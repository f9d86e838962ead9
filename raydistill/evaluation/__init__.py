"""A figure: metrics, tables, the report."""
