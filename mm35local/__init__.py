"""mm35local: Mistral Medium 3.5 (128B) on your own GPUs. Importing this package loads nothing heavy."""

__version__ = "0.1.0"
