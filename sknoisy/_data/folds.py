"""Which rows are trained on and which are held out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split

from sknoisy._data.training_data import TrainingData

_FEWEST_ROWS_TO_SPLIT = 64


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
    counts = np.bincount(data.target)
    stratify = counts.min() >= 2 and min(n_valid, n_rows - n_valid) >= len(counts)
    train, valid = train_test_split(
        np.arange(n_rows),
        test_size=n_valid,
        stratify=data.target if stratify else None,
        random_state=seed,
    )
    return Fold(np.sort(train), np.sort(valid))


def half_folds(data: TrainingData, seed: int) -> list[Fold]:
    """Hold each half of the rows out in turn; no fold if there are too few rows to split."""
    if len(data) < _FEWEST_ROWS_TO_SPLIT:
        return []
    half = stratified_halves(data.target, seed)
    halves = [np.flatnonzero(half == number) for number in (0, 1)]
    return [Fold(*halves), Fold(*halves[::-1])]


def stratified_halves(target: np.ndarray, seed: int) -> np.ndarray:
    """Assign each row to half 0 or 1, so that every observed class is spread over both.

    Parameters
    ----------
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    seed : int

    Returns
    -------
    ndarray of shape (n_samples,)
    """
    order = np.random.RandomState(seed).permutation(len(target))
    order = order[np.argsort(target[order], kind="stable")]
    half = np.empty(len(target), dtype=np.intp)
    half[order] = np.arange(len(target)) % 2
    return half
