"""What drove a score, for a server: JSON, and one explanation after the other."""
