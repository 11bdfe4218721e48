"""Thin owners of llama.cpp objects: the only room that imports `llama_cpp`."""
