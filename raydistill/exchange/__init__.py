"""A bundle as an ONNX graph: n-gram ids, offsets of bags and match features to scores."""
