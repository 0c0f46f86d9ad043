"""Training data in several processes, which hold the same rows or each some of their own."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sknoisy._data.columns import ColumnStatistics
from sknoisy._data.indexable import IndexableDataset, as_indexable
from sknoisy._data.training_data import TrainingData, validate_training_data
from sknoisy._distributed.group import Group

#: Parameters that each process has for itself.
_OF_A_PROCESS = ("callbacks", "device", "random_state", "verbose")


def training_data_of_all(
    group: Group, estimator: Any, X: Any, y: Any, sample_weight: Any = None, **more: Any
) -> TrainingData:
    """Validate and encode the training data of all processes.

    Labels, weights and all else that is a number or a few of a row is known of all rows in each
    process; X may hold those of this process only.

    Parameters
    ----------
    group : Group
    estimator, X, y, sample_weight, **more
        As for `validate_training_data`.

    Raises
    ------
    ValueError
        If the processes differ in the parameters of the estimator, or in the rows where these
        should be the same, or in what is known of a row.
    """
    if group.size == 1:
        return validate_training_data(estimator, X, y, sample_weight, **more)
    _check_same(group, "distributed", _plain_parameters(estimator))
    first = None
    if group.sharded:
        of_rows = {"sample_weight": sample_weight}
        of_rows |= {name: more.pop(name) for name in ("annotators", "trusted", "noisy_label")}
        first, y, of_rows = _together(group, X, y, of_rows)
        sample_weight = of_rows.pop("sample_weight")
        more |= of_rows
    data = validate_training_data(estimator, X, y, sample_weight, first=first, **more)
    shape = getattr(estimator, "_row_shape", None), getattr(estimator, "_input_names", None)
    _check_same(group, "X", {"rows of shape": shape})
    if not group.sharded:
        labels = {"rows": len(data), "labels": _digest(data.classes.tolist(), data.target.tolist())}
        _check_same(
            group, "X", labels, "Where each process has rows of its own, set distributed='sharded'."
        )
    is_double = group.sum(np.array([data.dtype == torch.float64], dtype=np.int64))
    return replace(data, dtype=torch.float64) if is_double.any() else data


def _digest(*values: Any) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def _plain_parameters(estimator: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in estimator.get_params(deep=False).items()
        if isinstance(value, bool | int | float | str | None) and name not in _OF_A_PROCESS
    }


def _check_same(group: Group, parameter: str, values: dict[str, Any], advice: str = "") -> None:
    """Raise an error, in all processes, where they differ in a value."""
    others = group.gather(values)
    for name in values:
        for rank, other in enumerate(others):
            if repr(other.get(name)) != repr(others[0].get(name)):
                message = (
                    f"`{parameter}`: all processes must have the same {name}; process 0 has "
                    f"{others[0].get(name)!r} and process {rank} {other.get(name)!r}. {advice}"
                )
                raise ValueError(message.rstrip())


def _together(
    group: Group, X: Any, y: Any, of_rows: dict[str, Any]
) -> tuple[int, np.ndarray, dict[str, Any]]:
    """Return the number of the first row of X, and what is known of the rows of all processes."""
    X = as_indexable(X, y)
    if y is None and isinstance(X, IndexableDataset):
        y = X.targets
    if y is None:
        raise ValueError(f"y must be passed, but the target y is None in process {group.rank}.")
    known = {"y": y, **of_rows}
    arrays = {name: None if value is None else np.asarray(value) for name, value in known.items()}
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    for name, values in arrays.items():
        if values is not None and (values.ndim == 0 or len(values) != n_rows):
            raise ValueError(
                f"`{name}` must hold a value for each row of X, {n_rows} in process {group.rank}; "
                f"got shape {values.shape}."
            )
    _check_same(
        group, "distributed", {name: _columns_of(values) for name, values in arrays.items()}
    )
    parts = group.gather(arrays)
    joined = {name: _joined([part[name] for part in parts]) for name in arrays}
    n_before = sum(len(part["y"]) for part in parts[: group.rank])
    return n_before, joined.pop("y"), joined


def _columns_of(values: np.ndarray | None) -> str:
    return "None" if values is None else f"columns, {values.shape[1:]}"


def _joined(parts: list[Any]) -> Any:
    """Return arrays one after the other; of mixed types as objects, which are told apart later."""
    if parts[0] is None:
        return None
    kinds = {"number" if part.dtype.kind in "biuf" else part.dtype.kind for part in parts}
    return np.concatenate(parts if len(kinds) == 1 else [part.astype(object) for part in parts])


def rows_of_process(data: TrainingData) -> TrainingData:
    """Return the rows that this process holds as data of their own."""
    if data.first is None:
        return data
    own = np.arange(data.first, data.first + data.X.shape[0])
    trusted, answers = data.trusted, data.answers
    return replace(
        data,
        first=None,
        target=data.target[own],
        weight=None if data.weight is None else data.weight[own],
        answers=None if answers is None else answers.take(own),
        trusted=None
        if trusted is None
        else replace(trusted, mask=trusted.mask[own], observed=trusted.observed[own]),
    )


def column_statistics(
    data: TrainingData, group: Group, before: ColumnStatistics | None = None
) -> ColumnStatistics:
    """Return mean and scale of the columns of the rows of all processes.

    Parameters
    ----------
    data : TrainingData
    group : Group
    before : ColumnStatistics, default=None
        Those of earlier rows, which are left as they are.
    """
    statistics = ColumnStatistics() if before is None else copy.deepcopy(before)
    if group.size == 1:
        for part, weight in data.parts():
            statistics.update(part, weight)
        return statistics
    own, n_rows = ColumnStatistics(), data.X.shape[0]
    bounds = 0, n_rows
    if not group.sharded:
        bounds = n_rows * group.rank // group.size, n_rows * (group.rank + 1) // group.size
    if bounds[0] < bounds[1]:
        for part, weight in data.parts(*bounds):
            own.update(part, weight)
    statistics.merge(group.gather(own))
    return statistics
