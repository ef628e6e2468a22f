"""ONNX files: reading, checking, changing and writing them without holding their weights."""
