"""Ray: connection, tasks, fits and trials."""
