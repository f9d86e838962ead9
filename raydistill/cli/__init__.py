"""Commands: `raydistill COMMAND`, and what a job file calls."""
