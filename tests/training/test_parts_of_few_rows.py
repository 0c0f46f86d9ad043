"""Few rows of a class: into how many parts they fall, and what is tried when the first fails."""

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from sknoisy import NoisyLabelClassifier
from sknoisy._stages.folds import cross_folds, held_out_fold, next_fold
from sknoisy._training.noise_estimates import NoiseEstimator
from sknoisy._training.trainer import Trainer
from sknoisy.noise import corrupt_labels, pair_transition


class Rows:
    """As much of the training data as the parts depend on."""

    trusted = None

    def __init__(self, n_rows, n_classes):
        self.n_classes = n_classes
        self.target = np.arange(n_rows) % n_classes

    def __len__(self):
        return len(self.target)


@pytest.mark.parametrize(
    ("n_rows", "n_classes", "n_folds", "share"),
    [(1040, 26, 4, 4), (1040, 5, 2, 2), (900, 5, 4, 4), (1999, 26, 4, 4), (2100, 26, 1, 2)],
)
def test_few_rows_of_a_class_are_left_out_by_a_quarter(n_rows, n_classes, n_folds, share):
    folds = cross_folds(Rows(n_rows, n_classes), 0)
    assert len(folds) == n_folds
    for fold in folds:
        assert abs(len(fold.valid) - n_rows / share) <= n_classes


@pytest.mark.parametrize(
    ("share", "sizes"), [(0.1, [60] * 10), (0.4, [240, 240, 120]), (0.5, [300, 300])]
)
def test_further_parts_are_of_rows_that_were_not_held_out(share, sizes):
    data = Rows(600, 3)
    folds = [held_out_fold(data, share, 0)]
    while (fold := next_fold(folds, data, 0)) is not None:
        folds.append(fold)
    assert [len(fold.valid) for fold in folds] == sizes
    np.testing.assert_array_equal(np.sort(np.concatenate([f.valid for f in folds])), np.arange(600))
    for fold in folds:
        np.testing.assert_array_equal(np.union1d(fold.train, fold.valid), np.arange(600))
        assert len(fold.train) + len(fold.valid) == 600
        assert np.ptp(np.bincount(data.target[fold.valid])) <= 1


@pytest.mark.parametrize("helps", [True, False])
def test_classes_are_taken_as_they_come_where_balanced_ones_did_not_help(monkeypatch, helps):
    tried = []

    def noted(self, predict, *, balanced=True, truly=NoiseEstimator.recounts):
        tried.append(balanced)
        return truly(self, predict, balanced=balanced)

    monkeypatch.setattr(NoiseEstimator, "recounts", noted)
    monkeypatch.setattr(NoiseEstimator, "leaves_parts_out", False)  # one start is refined
    monkeypatch.setattr(NoiseEstimator, "_is_behind", lambda *args: False)
    monkeypatch.setattr(Trainer, "_best_of", staticmethod(lambda c: c[-1 if helps else 0]))
    X, y = make_blobs(6 * 12, 4, centers=6, cluster_std=2.0, random_state=1)
    observed = corrupt_labels(y, pair_transition(6, 0.4), random_state=1)
    classifier = NoisyLabelClassifier(
        hidden_layer_sizes=(8,), max_epochs=2, random_state=0, select_noise_model=False
    ).fit(X, observed)
    assert tried == sorted(tried, reverse=True)
    assert tried[0] and tried[-1] is helps
    assert [report["start"] for report in classifier.selection_].count("sparse") == len(tried)
