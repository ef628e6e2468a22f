"""ncnn: its file formats, its converter pnnx, its runtime, and sherpa-ncnn."""
