"""Labels that are probably wrong, on their way to somebody who looks and back."""
