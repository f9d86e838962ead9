"""A host of the server: processes of this machine, or Ray Serve."""
