"""What estimates of the noise are given to see, and what is taken off the gain of their starts."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.datasets import make_blobs

from sknoisy import NoisyLabelClassifier
from sknoisy._training import noise_estimates
from sknoisy._training.trainer import Trainer
from sknoisy._transition.starts import Estimate
from sknoisy.noise import corrupt_labels, pair_transition, uniform_transition


def blobs(n_samples=120, rate=0.2):
    X, y = make_blobs(n_samples, centers=3, cluster_std=1.0, random_state=2)
    return X, corrupt_labels(y, pair_transition(3, rate), random_state=0)


def fit(X, y, **params):
    defaults = {"random_state": 0, "hidden_layer_sizes": (16,), "select_noise_model": False}
    return NoisyLabelClassifier(**defaults | params).fit(X, y)


@pytest.mark.parametrize("early_stopping", [True, False])
def test_predictions_among_classes_with_enough_labels_sum_to_one(early_stopping, monkeypatch):
    """Rows of the others are left out, and so is what is predicted of them.

    So are rows that are held out to choose among the starts.
    """
    seen = []

    def see(log_proba, target, weight, **seed):
        seen.append(np.exp(log_proba))
        return Estimate(uniform_transition(log_proba.shape[1], 0.2), -1.0)

    names = ("calibrated", "mixture", "confident", "hard")  # uniform noise takes fewer rows
    for name in [f"{name}_start" for name in names]:
        monkeypatch.setattr(noise_estimates, name, see)
    X, y = blobs(200)
    X, y = np.r_[X, np.full((9, 2), 20.0)], np.r_[y, np.full(9, 3)]
    fit(X, y, max_epochs=2, early_stopping=early_stopping)
    assert len(seen) == (4 if early_stopping else 2)
    for proba in seen:
        assert proba.shape == (180 if early_stopping else 200, 3)
        assert_allclose(proba.sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("many", [True, False])
def test_labels_that_judge_are_counted_with_many_classes_only(monkeypatch, many):
    counted = {}

    def noted(name, truly):
        def see(log_proba, target, weight, **params):
            judged = params.get("unseen", params.get("judged"))
            apart = judged is not None and params["apart"]
            counted.setdefault(name, set()).add((len(target), apart))
            return truly(log_proba, target, weight, **params)

        return see

    if many:
        monkeypatch.setattr(noise_estimates, "MANY_CLASSES_FOR_A_START", 5)
    names = ["calibrated", "mixture", "confident", "hard", "sparse", "recounted"]
    for name in [f"{name}_start" for name in names]:
        monkeypatch.setattr(noise_estimates, name, noted(name, getattr(noise_estimates, name)))
    monkeypatch.setattr(noise_estimates.NoiseEstimator, "_is_behind", lambda self, a, b: True)
    X, y = make_blobs(400, centers=6, cluster_std=2.0, random_state=2)
    observed = corrupt_labels(y, pair_transition(6, 0.3), random_state=0)
    fit(X, observed, max_epochs=10, lr=0.01, early_stopping=True)
    for name in ("mixture", "confident", "hard"):
        assert counted[f"{name}_start"] == {(400 if many else 360, False)}
    assert counted["calibrated_start"] == {(400 if many else 360, False), (40, False)}
    for name in ("sparse", "recounted"):
        assert counted[f"{name}_start"] == {(400, not many)}


@pytest.mark.parametrize("early_stopping", [True, "auto"])
def test_the_mixture_of_the_jointly_trained_network_is_an_estimate_where_rows_are_held_out(
    monkeypatch, early_stopping
):
    found = []

    def noted(self, *args, truly=noise_estimates.NoiseEstimator.recounts, **kwargs):
        found.append(truly(self, *args, **kwargs))
        return found[-1]

    monkeypatch.setattr(noise_estimates.NoiseEstimator, "recounts", noted)
    X, y = make_blobs(600, centers=6, cluster_std=2.0, random_state=2)
    observed = corrupt_labels(y, pair_transition(6, 0.3), random_state=0)
    fit(X, observed, max_epochs=10, lr=0.01, early_stopping=early_stopping)
    assert found
    for estimates in found:
        assert ("mixture" in estimates) == (early_stopping is True)
        assert len(estimates) == 1 + ("mixture" in estimates)


@pytest.mark.parametrize("early_stopping", [True, False])
def test_a_start_pays_for_its_entries_where_it_saw_the_labels_that_judge(
    early_stopping, monkeypatch
):
    """With rows held out for good few of them were seen; the calibrated start is shrunk."""
    starts = {"calibrated": pair_transition(3, 0.1), "mixture": uniform_transition(3, 0.3)}
    for name, start in starts.items():
        found = Estimate(start, {"calibrated": -1.0, "mixture": -0.5}[name])
        monkeypatch.setattr(noise_estimates, f"{name}_start", lambda *a, f=found, **k: f)
    for name in ("confident", "hard"):
        monkeypatch.setattr(
            noise_estimates, f"{name}_start", lambda *a, **k: uniform_transition(3, 0.3)
        )
    made, make = [], Trainer._candidate

    def record(self, *args):
        made.append(make(self, *args))
        return made[-1]

    monkeypatch.setattr(Trainer, "_candidate", record)
    fit(*blobs(), max_epochs=2, early_stopping=early_stopping)
    # Six entries of more than a label each, half a label for each of them, of 120.
    expected = {None: 0.0, "calibrated": 0.0, "mixture": 0.0 if early_stopping else 3 / 120}
    paid = {c.start: c.penalty for c in made if c.start in expected}
    assert {None, "calibrated"} <= paid.keys()
    assert early_stopping or "mixture" in paid
    assert paid == {start: pytest.approx(expected[start]) for start in paid}


@pytest.mark.parametrize("n_classes", [5, 6])
@pytest.mark.parametrize(("rate", "is_far"), [(0.23, False), (0.4, True)])
@pytest.mark.parametrize("is_simple", [False, True])
def test_with_some_classes_structure_competes_and_all_starts_pay(
    n_classes, rate, is_far, is_simple, monkeypatch
):
    """Though a mixture of few parameters explains less; what is shrunk is free by a share."""
    simple = Estimate(pair_transition(n_classes, 0.2), -0.5, shrunk_by=20.0)
    mixture = Estimate(pair_transition(n_classes, rate), -1.0, is_simple=is_simple)
    for name, found in {"calibrated": simple, "mixture": mixture}.items():
        monkeypatch.setattr(noise_estimates, f"{name}_start", lambda *a, f=found, **k: f)
    paid, truly = {}, Trainer._candidate

    def record(self, *args):
        candidate = truly(self, *args)
        paid.setdefault(candidate.start, candidate.penalty)
        return candidate

    monkeypatch.setattr(Trainer, "_candidate", record)
    y = np.repeat(np.arange(n_classes), 40)
    X = np.eye(n_classes)[y] + 0.1 * np.random.default_rng(0).standard_normal((len(y), n_classes))
    fit(X, y, max_epochs=2, select_noise_model=True)
    share = 40 / (40 + 20) if n_classes == 6 and is_simple and is_far else 0.0
    assert paid["calibrated"] == pytest.approx(n_classes * share / (2 * len(y)))
    assert ("mixture" in paid) == (is_simple and n_classes == 6)
