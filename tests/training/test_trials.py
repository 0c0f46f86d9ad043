"""Short joint trainings of several starts, and the training that goes on from one of them."""

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs, make_classification

from sknoisy import NoisyLabelClassifier
from sknoisy._net.net import SkorchNet
from sknoisy._stages.selection import Candidate
from sknoisy._stages.stages import Stages
from sknoisy._training import noise_estimates
from sknoisy._training.trainer import Trainer
from sknoisy._transition.starts import Estimate
from sknoisy.noise import corrupt_labels, pair_transition, uniform_transition

STARTS = {"calibrated": uniform_transition(3, 0.3), "mixture": pair_transition(3, 0.3)}


@pytest.fixture
def stages(monkeypatch):
    """Record each stage: its name, the state of the network before and after, and epochs."""
    seen, train_stage = [], SkorchNet.train_stage

    def record(self, stage, *args, **params):
        before = copy.deepcopy(self.network.state_dict())
        end = train_stage(self, stage, *args, **params)
        after = copy.deepcopy(self.network.state_dict())
        seen.append((stage, before, after, params["max_epochs"]))
        return end

    monkeypatch.setattr(SkorchNet, "train_stage", record)
    for name, matrix in STARTS.items():
        found = Estimate(matrix, -1.0)
        monkeypatch.setattr(noise_estimates, f"{name}_start", lambda *a, found=found, **k: found)
    for name in ("confident", "hard"):
        monkeypatch.setattr(noise_estimates, f"{name}_start", lambda *a, **k: STARTS["mixture"])
    return seen


def fit(**params):
    X, y = make_blobs(150, centers=3, cluster_std=1.0, random_state=2)
    observed = corrupt_labels(y, STARTS["mixture"], random_state=0)
    defaults = {"hidden_layer_sizes": (8,), "early_stopping": True, "max_epochs": 40}
    defaults |= {"select_noise_model": False, "random_state": 0, "lr": 0.01}
    return NoisyLabelClassifier(**(defaults | params)).fit(X, observed)


def same(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[k], other[k]) for k in state)


def learned(state):
    """Return how far the matrix has moved from its start."""
    return float((state["noise.bias"].exp() - state["noise.start"]).abs().max())


def tie(monkeypatch, at_first=0.0):
    """Let short trainings explain as much as each other, or that of the mixture more."""

    def gain(self, other, truly=Candidate.gain):
        if self.stage != "start":
            return truly(self, other)
        return ((self.start == "mixture") - (other.start == "mixture")) * at_first, 1.0

    monkeypatch.setattr(Candidate, "gain", gain)


@pytest.mark.parametrize("method", ["direct", "em"])
def test_the_joint_training_goes_on_with_weights_and_noise_of_its_start(
    stages, monkeypatch, method
):
    tie(monkeypatch, 10.0)
    monkeypatch.setattr(Stages, "_patience", lambda self, rows: 4)
    fit(method=method)
    stage = "em" if method == "em" else "s"
    trials, (joint,) = ([row for row in stages if row[0] == name] for name in ("start", stage))
    last = trials[-1]
    assert same(joint[1], last[2])
    assert joint[3] == 40 - last[3]
    # EM moves the matrix between epochs, but not in the short training.
    assert (learned(joint[1]) > 1e-3) == (method == "direct")


@pytest.mark.parametrize("method", ["direct", "em"])
def test_where_parts_are_held_out_in_turn_it_begins_with_new_weights(stages, monkeypatch, method):
    tie(monkeypatch)
    monkeypatch.setattr(Trainer, "_keeps_baseline", lambda self, plain: False)
    fit(early_stopping=False, method=method)
    fresh = stages[0][1]
    _, before, *_ = next(row for row in stages if row[0] in ("em", "s"))
    assert all(torch.equal(before[name], fresh[name]) for name in fresh)


def test_a_start_is_judged_by_what_it_explains_after_its_last_epoch(stages, monkeypatch):
    judged = []
    judge = Candidate.judge

    def noted(self, log_likelihood, weight):
        judge(self, log_likelihood, weight)
        if self.stage == "start":
            judged.append((self.start, self.log_likelihood.copy()))

    monkeypatch.setattr(Candidate, "judge", noted)
    tie(monkeypatch)
    fit()
    for start in STARTS:
        first, *_, last = [found for name, found in judged if name == start]
        assert np.abs(first - last).max() > 1e-3


def test_networks_that_are_averaged_are_trained_from_their_own_first_weights(stages, monkeypatch):
    tie(monkeypatch, 10.0)
    classifier = fit(n_networks=2)
    first, second = [row for row in stages if row[0] == "s"]
    assert not same(first[1], second[1])
    assert learned(first[1]) > 1e-3
    assert learned(second[1]) < 1e-6
    assert np.isfinite(classifier.predict_proba(np.zeros((1, 2)))).all()


def test_a_matrix_of_much_noise_competes_with_counts_that_say_little():
    """Counts beside predictions of half and half say little; of two such starts none is right."""
    X, y = make_classification(
        1600, 20, n_informative=6, n_redundant=0, n_classes=8, n_clusters_per_class=1,
        class_sep=1.5, flip_y=0, random_state=0,
    )  # fmt: skip
    observed = corrupt_labels(y[:1000], pair_transition(8, 0.45), random_state=0)
    params = {"early_stopping": True, "max_epochs": 60, "random_state": 0}
    estimator = NoisyLabelClassifier(**params).fit(X[:1000], observed)
    assert estimator.noise_rate_ > 0.3
    plain = NoisyLabelClassifier(noise_model=None, **params).fit(X[:1000], observed)
    assert estimator.score(X[1000:], y[1000:]) > plain.score(X[1000:], y[1000:]) + 0.15


@pytest.mark.parametrize(("rate", "competes"), [(0.45, True), (0.001, False)])
def test_even_errors_compete_where_they_say_noise(stages, monkeypatch, rate, competes):
    even = uniform_transition(3, rate)
    monkeypatch.setattr(noise_estimates, "uniform_start", lambda *args: even)
    monkeypatch.setattr(Candidate, "gain", lambda self, other, among=None: (0.0, 1.0))
    starts = [report["start"] for report in fit(max_epochs=6).selection_]
    # The best of those that are as good is the simplest one.
    assert starts == [None, "uniform" if competes else "calibrated"]


@pytest.mark.parametrize(("counts", "best"), [(0.05, "mixture"), (0.5, "counts")])
@pytest.mark.parametrize("name", ["confident", "hard"])
def test_counts_have_to_be_a_standard_error_ahead_of_the_mixture(counts, best, name):
    """Of 100 labels whose gains spread by one, that is a tenth; the calibrated start has not."""

    def trial(start, gain):
        candidate = Candidate("start", start)
        candidate.judge(gain + np.tile([-0.5, 0.5], 50) * (start != "mixture") * 2.0, None)
        return candidate

    of_mixture, of_counts = trial("mixture", 0.0), trial(name, counts)
    expected = {"mixture": of_mixture, "counts": of_counts}[best]
    assert Trainer._best_trial([of_mixture, of_counts]) is expected
    calibrated = trial("calibrated", counts)
    assert Trainer._best_trial([calibrated, of_mixture]) is calibrated
    assert Trainer._best_trial([trial("mixture", 0.0), trial(name, -0.2)]).start == "mixture"
