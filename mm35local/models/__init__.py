"""Models: which ones there are, which file is meant, how it gets here, and whether it fits."""
