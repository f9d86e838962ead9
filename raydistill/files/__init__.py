"""A file: folders on a disk or an object store, and whole files in them."""
