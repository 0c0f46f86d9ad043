"""Shared parts: validation, seeds, threads, memory, progress."""
