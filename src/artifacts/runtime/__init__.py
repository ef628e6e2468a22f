"""Running models: ONNX Runtime sessions, child processes, and the processor."""
