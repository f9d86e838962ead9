"""Ray Core, Data, Train and Tune: connection, tasks, fits and trials."""
