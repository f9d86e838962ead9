"""Everything that calls Ray Core, Train and Tune: connection, tasks, fits and trials."""
