"""Any classifier of scikit-learn, fitted to noisy labels."""
