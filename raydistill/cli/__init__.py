"""The command line: `raydistill COMMAND`, and the entry points of job files."""
