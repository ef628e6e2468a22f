"""ncnn's formats, its converter and its runtimes: pnnx, ncnn itself and sherpa-ncnn."""
