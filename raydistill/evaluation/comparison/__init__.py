"""Two students side by side: which queries moved, as text; and bounds that figures must keep."""
