"""From a student to the files of its bundle."""
