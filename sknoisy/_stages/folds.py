"""Which rows are trained on and which are held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split

from sknoisy._data.training_data import TrainingData
from sknoisy._transition.calibration import are_few_rows

#: Noise is estimated from no fewer rows.
FEWEST_ROWS = 64

_FEWEST_ROWS_FOR_HALVES = 1000
_FEWEST_ROWS_FOR_ONE_HALF = 2000
_PARTS_OF_FEW_ROWS = 4
_CHECKED_ROWS_TO_JUDGE = 50


class Fold(NamedTuple):
    """Rows to train on, and held-out rows; None stands for all and for none."""

    train: np.ndarray | None
    valid: np.ndarray | None


def held_out_fold(data: TrainingData, validation_fraction: float, seed: int) -> Fold:
    """Hold a share of the rows out, stratified where every class has rows enough for both parts.

    Parameters
    ----------
    data : TrainingData
    validation_fraction : float
    seed : int
    """
    n_rows = len(data)
    n_valid = min(max(round(validation_fraction * n_rows), 1), n_rows - 1)
    return _fold_of(_drawn(np.arange(n_rows), n_valid, data, seed), data)


def next_fold(folds: Sequence[Fold], data: TrainingData, seed: int) -> Fold | None:
    """Hold out as many rows as the first fold does, of those that no fold holds out.

    Parameters
    ----------
    folds : sequence of Fold
    data : TrainingData
    seed : int

    Returns
    -------
    Fold or None
        It holds out what is left where that is no more, and is None where nothing is left.
    """
    held_out = [np.asarray(fold.valid) for fold in folds]
    left = np.setdiff1d(np.arange(len(data)), np.concatenate(held_out))
    if len(left) > len(held_out[0]):
        left = _drawn(left, len(held_out[0]), data, seed + len(folds))
    return _fold_of(left, data) if len(left) else None


def _drawn(rows: np.ndarray, n_drawn: int, data: TrainingData, seed: int) -> np.ndarray:
    """Draw some of the rows, stratified where every class has rows enough for both parts."""
    target = data.target[rows]
    counts = np.unique(target, return_counts=True)[1]
    stratify = counts.min() >= 2 and min(n_drawn, len(rows) - n_drawn) >= len(counts)
    drawn = train_test_split(
        rows, test_size=n_drawn, stratify=target if stratify else None, random_state=seed
    )[1]
    return np.sort(drawn)


def _fold_of(valid: np.ndarray, data: TrainingData) -> Fold:
    return Fold(np.setdiff1d(np.arange(len(data)), valid), valid)


def held_out_with_checked(data: TrainingData, validation_fraction: float, seed: int) -> Fold:
    """Hold a share of the rows out, and up to half of those whose label was checked.

    That is what it takes to have fifty of them to judge by, if there are so many.

    Parameters
    ----------
    data : TrainingData
    validation_fraction : float
    seed : int
    """
    assert data.trusted is not None
    fold = held_out_fold(data, validation_fraction, seed)
    checked = data.rows_trusted
    n_valid = max(
        validation_fraction * len(checked), min(0.5 * len(checked), _CHECKED_ROWS_TO_JUDGE)
    )
    order = checked[np.random.RandomState(seed).permutation(len(checked))]
    order = order[np.argsort(data.target[order], kind="stable")]
    # One row in so many, class by class: a class with few rows keeps one of them to train on.
    held_out = np.floor(np.arange(1, len(order) + 1) * n_valid / len(order) + 1e-9)
    held_out = order[np.diff(held_out, prepend=0.0) > 0]
    others = np.asarray(fold.valid)
    valid = np.union1d(others[~data.trusted.mask[others]], held_out)
    return _fold_of(valid, data)


def cross_folds(data: TrainingData, seed: int) -> list[Fold]:
    """Hold each part of the rows out in turn; no fold if there are too few rows to split.

    Halves cost the least. Of few rows, or few of each class, a half says too little about training
    on all of them, and of many one half says enough.
    """
    n_rows = len(data)
    if n_rows < FEWEST_ROWS:
        return []
    few = n_rows < _FEWEST_ROWS_FOR_HALVES or are_few_rows(n_rows, data.n_classes)
    n_parts = _PARTS_OF_FEW_ROWS if few and n_rows < _FEWEST_ROWS_FOR_ONE_HALF else 2
    strata = data.target
    if data.trusted is not None:
        strata = strata + data.n_classes * data.trusted.mask
    part = stratified_parts(strata, seed, n_parts)
    n_folds = 1 if n_rows >= _FEWEST_ROWS_FOR_ONE_HALF else n_parts
    return [
        Fold(np.flatnonzero(part != number), np.flatnonzero(part == number))
        for number in range(n_folds)
    ]


def stratified_parts(target: np.ndarray, seed: int, n_parts: int = 2) -> np.ndarray:
    """Assign each row to a part, so that every observed class is spread over all of them.

    Parameters
    ----------
    target : ndarray of shape (n_samples,)
        Encoded labels.
    seed : int
    n_parts : int, default=2

    Returns
    -------
    ndarray of shape (n_samples,)
    """
    order = np.random.RandomState(seed).permutation(len(target))
    order = order[np.argsort(target[order], kind="stable")]
    part = np.empty(len(target), dtype=np.intp)
    part[order] = np.arange(len(target)) % n_parts
    return part
