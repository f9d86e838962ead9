"""Commands that look before and after a run: `plan`, `verify`, `doctor`."""
