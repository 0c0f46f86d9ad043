"""Threads of numpy and scikit-learn where they pay.

Measured with ``tests/benchmarks/scaling.py --parts threads``: mixtures of up to thirty classes take
longer with two threads than with one.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

_MOST_CLASSES_FOR_ONE_THREAD = 30


def threads_for_classes(n_classes: int) -> AbstractContextManager[Any]:
    """Keep numpy and scikit-learn to one thread inside the block where classes are few.

    Their threads also go on spinning for a while after the work is done, in the way of torch's.
    """
    return _thread_pools().limit(limits=1 if n_classes <= _MOST_CLASSES_FOR_ONE_THREAD else None)


@cache
def _thread_pools() -> ThreadpoolController:
    """Look for them once; it takes longer than a small mixture."""
    return ThreadpoolController()
