"""Measurements: one script a claim; each prints a table and writes bench/results/NAME.json."""
