"""ONNX files: find, check, change and write them without their weights in memory."""
