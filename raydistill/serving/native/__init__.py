"""The native library: C functions that score pairs with a model file, without Python."""
