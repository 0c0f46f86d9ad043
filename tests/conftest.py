"""Settings that must be made before numpy, scipy and torch are imported."""

import os

# scikit-learn skips its array API check without it.
os.environ.setdefault("SCIPY_ARRAY_API", "1")
# Networks this small lose more to threads that wait for each other than they gain.
os.environ.setdefault("OMP_NUM_THREADS", "1")
