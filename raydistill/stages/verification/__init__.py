"""Whether the files of a run are whole and fit together, and the removal of those that are not."""
