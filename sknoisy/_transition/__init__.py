"""Transition matrices from predictions and labels."""
