"""Predictions of which each process computes a part."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np
from sklearn.utils import _safe_indexing

from sknoisy._data.indexable import as_indexable
from sknoisy._distributed.joining import current_group, joined_processes

Method = TypeVar("Method", bound=Callable[..., Any])

_splits: ContextVar[bool] = ContextVar("splits", default=False)


@contextmanager
def split_predictions() -> Iterator[None]:
    """Let the processes of a group share the work of the predictions inside the block.

    Outside of it each process predicts what it is asked for, so that one of them may predict, or
    score, while the others do something else. Inside, all processes of the default group of
    ``torch.distributed`` must ask `NoisyLabelClassifier` for the same predictions of the same rows
    in the same order. Each computes those of a part of the rows, and all get those of all rows.
    Without a group nothing changes.

    Examples
    --------
    >>> import numpy as np
    >>> from sknoisy import NoisyLabelClassifier, split_predictions
    >>> X, y = np.eye(4), [0, 1, 0, 1]
    >>> classifier = NoisyLabelClassifier(max_epochs=1, random_state=0).fit(X, y)
    >>> with split_predictions():
    ...     proba = classifier.predict_proba(X)
    >>> proba.shape
    (4, 2)
    """
    token = _splits.set(True)
    try:
        yield
    finally:
        _splits.reset(token)


def split_over_processes(predict: Method) -> Method:
    """Let a method that predicts rows of X be computed by several processes together.

    It takes X, and other arguments with a value for each row or None, and returns an array with a
    value for each row, or several of them.
    """

    @functools.wraps(predict)
    def predict_part(estimator: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
        if not _splits.get() or current_group().size > 1:
            return predict(estimator, X, *args, **kwargs)
        with joined_processes("auto"):
            group = current_group()
            if group.size == 1:
                return predict(estimator, X, *args, **kwargs)
            group.enter("in a prediction")
            X = as_indexable(X, several=getattr(estimator, "_input_names", None) is not None)
            n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
            start, stop = (n_rows * rank // group.size for rank in (group.rank, group.rank + 1))
            rows = np.arange(start, stop)
            of_rows = [_of(value, rows) for value in args]
            named = {name: _of(value, rows) for name, value in kwargs.items()}
            part = None
            if start < stop or n_rows == 0:
                part = predict(estimator, _of(X, rows), *of_rows, **named)
            parts = [part for part in group.gather(part) if part is not None]
        if isinstance(parts[0], tuple):
            return tuple(np.concatenate(values) for values in zip(*parts, strict=True))
        return np.concatenate(parts)

    return predict_part  # type: ignore[return-value]


def _of(values: Any, rows: np.ndarray) -> Any:
    return None if values is None else _safe_indexing(values, rows)
