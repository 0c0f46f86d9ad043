"""Rows, labels and weights, and the batches that they come in."""
