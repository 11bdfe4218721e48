"""The converter: an FP8 checkpoint becomes GGUF files, one read of the source for every quant asked for."""
