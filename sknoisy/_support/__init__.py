"""What all rooms lean on: validation, seeds, threads, memory, progress."""
