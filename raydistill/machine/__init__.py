"""What this machine and its installation lack for a run, or for serving a bundle."""
