"""Settings that must be made before numpy, scipy and torch are imported, and of hypothesis."""

import os

# scikit-learn skips its array API check without it.
os.environ.setdefault("SCIPY_ARRAY_API", "1")
# Networks this small lose more to threads that wait for each other than they gain.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import HealthCheck, settings

# The same examples in every run. To search for new ones: pytest --hypothesis-profile=search
_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("fixed", derandomize=True, max_examples=100, **_common)
settings.register_profile("search", max_examples=3000, print_blob=True, **_common)
settings.load_profile("fixed")
