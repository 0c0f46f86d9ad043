"""The estimator: parameters in, predictions out."""
