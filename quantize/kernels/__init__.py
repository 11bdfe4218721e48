"""Faster quantisers that write ggml's bytes, for the types whose own ggml computes one element at a time."""
