"""A file: folders on a local disk or an object store, and complete files in them."""
