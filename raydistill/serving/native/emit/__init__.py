"""The functions of the native library, the emitter that compiles them, and the model file."""
