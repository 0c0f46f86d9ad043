"""One stage of training, and what is judged when it has ended."""
