"""Shared parts: validation, labels, seeds, threads, memory and the state of torch."""
