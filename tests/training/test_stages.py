"""The trainer: what it holds out, where it starts from, and what EM does to the likelihood."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits, make_blobs
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback
from torch import nn

from sknoisy import NoisyLabelClassifier
from sknoisy._training import stages
from sknoisy._training.stages import Trainer, stratified_halves
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import corrupt_labels, pair_transition, uniform_transition


def blobs(n_samples=120, rate=0.2):
    X, y = make_blobs(n_samples, centers=3, cluster_std=1.0, random_state=2)
    return X, corrupt_labels(y, pair_transition(3, rate), random_state=0)


def classifier(**params):
    return NoisyLabelClassifier(**({"random_state": 0, "hidden_layer_sizes": (16,)} | params))


def weights(trainer):
    """Return a copy of the weights of the network of a trainer."""
    return copy.deepcopy(trainer.net.network.state_dict())


@pytest.fixture
def spy(monkeypatch):
    """Record the stages of a fit: the rows, the weights before, and the noise layer."""
    seen = []
    train = Trainer._train

    def record(self, stage, *datasets, **kwargs):
        rows = [None if d is None else d.rows for d in datasets or (self.train, self.valid)]
        seen.append({"stage": stage, "rows": rows, "state": weights(self)})
        return train(self, stage, *datasets, **kwargs)

    monkeypatch.setattr(Trainer, "_train", record)
    return seen


def same_network(state, other):
    names = [name for name in state if not name.startswith("noise.")]
    return all(torch.equal(state[name], other[name]) for name in names)


# --- Cross-fitting ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_halves_are_stratified(seed):
    target = np.repeat([0, 1, 2, 3], [100, 31, 2, 7])
    half = stratified_halves(target, seed)
    assert set(half) == {0, 1}
    for label in range(4):
        counts = np.bincount(half[target == label], minlength=2)
        assert abs(counts[0] - counts[1]) <= 1
    assert not np.array_equal(half, stratified_halves(target, seed + 1))
    assert_array_equal(half, stratified_halves(target, seed))


def test_each_half_is_predicted_by_the_network_that_did_not_see_it(spy):
    classifier(max_epochs=2).fit(*blobs())
    first, second, joint = spy
    assert [row["stage"] for row in spy] == ["baseline", "baseline", "s"]
    train, held_out = first["rows"]
    assert set(train).isdisjoint(held_out)
    assert_array_equal(np.sort(np.r_[train, held_out]), np.arange(120))
    assert_array_equal(second["rows"][0], held_out)
    assert_array_equal(second["rows"][1], train)
    assert joint["rows"] == [None, None]


@pytest.mark.parametrize("method", ["direct", "em"])
def test_all_start_from_the_same_new_weights_when_no_rows_are_held_out(spy, monkeypatch, method):
    before_em = []
    train_em = Trainer._train_em

    def record(self):
        before_em.append(weights(self))
        train_em(self)

    monkeypatch.setattr(Trainer, "_train_em", record)
    classifier(method=method, max_epochs=3, tol=10.0).fit(*blobs())
    states = [row["state"] for row in spy] + before_em
    assert len(states) == 3
    for state in states:
        assert same_network(state, states[0])


def test_c_model_starts_from_new_weights_and_the_matrix_of_the_s_model(spy):
    estimator = classifier(noise_model="c", max_epochs=3).fit(*blobs())
    first, _, s, c = spy
    assert (s["stage"], c["stage"]) == ("s", "c")
    assert same_network(c["state"], first["state"])
    assert not (c["state"]["noise.weight"]).any()
    moved = np.abs(np.exp(c["state"]["noise.bias"].numpy()) - estimator.initial_transition_matrix_)
    assert 1e-5 < moved.max() < 0.1


def test_a_network_that_needed_all_its_epochs_keeps_its_weights(spy):
    classifier(noise_model="c", max_epochs=5, early_stopping=True).fit(*blobs())
    states = {row["stage"]: row["state"] for row in spy}
    assert [row["stage"] for row in spy] == ["baseline", "start", "start", "start", "s", "c"]
    assert not same_network(states["s"], states["baseline"])
    assert not same_network(states["c"], states["s"])
    assert not states["c"]["noise.weight"].any()


def test_a_trained_baseline_goes_on_from_the_confusion_start(spy):
    classifier(transition_init="confusion", max_epochs=5).fit(*blobs())
    baseline, joint = spy
    assert not same_network(baseline["state"], joint["state"])


# --- The choice among starts --------------------------------------------------------------------


def test_every_start_is_tried_from_the_same_baseline_and_leaves_nothing_behind(spy):
    classifier(max_epochs=5, early_stopping=True).fit(*blobs())
    tried = [row["state"] for row in spy if row["stage"] == "start"]
    joint = spy[-1]["state"]
    for state in [*tried, joint]:
        assert same_network(state, tried[0])
    biases = [state["noise.bias"] for state in tried]
    assert any(torch.equal(joint["noise.start"], state["noise.start"]) for state in tried)
    assert not torch.equal(biases[0], biases[1])


@pytest.mark.parametrize(
    ("losses", "winner"),
    [
        ([0.7, 0.8, 0.9], "mixture"),
        ([0.8, 0.7, 0.9], "confident"),
        ([0.9, 0.8, 0.7], "hard"),
        ([0.7, 0.7, 0.7], "mixture"),
        ([0.7004, 0.7, 0.7], "mixture"),
        ([0.7, 0.699, 0.6985], "hard"),
    ],
)
def test_the_start_with_the_likeliest_held_out_labels_wins_and_ties_go_to_the_mixture(
    monkeypatch, losses, winner
):
    starts = {
        "mixture": uniform_transition(3, 0.1),
        "confident": uniform_transition(3, 0.2),
        "hard": uniform_transition(3, 0.3),
    }
    for name, start in starts.items():
        monkeypatch.setattr(stages, f"{name}_start", lambda *a, start=start, **k: start)
    train, remaining = Trainer._train, list(losses)

    def rigged(self, stage, *args, **kwargs):
        stopped = train(self, stage, *args, **kwargs)
        if stage == "start":
            self.net.history.record("valid_loss", remaining.pop(0))
        return stopped

    monkeypatch.setattr(Trainer, "_train", rigged)
    estimator = classifier(max_epochs=2, early_stopping=True).fit(*blobs())
    assert remaining == []
    assert_allclose(estimator.initial_transition_matrix_, starts[winner], atol=1e-7)


@cache
def digits():
    X, y = load_digits(return_X_y=True)
    return X / 16, y


@pytest.mark.parametrize("transition", [np.eye(10), pair_transition(10, 0.4)])
def test_a_start_that_is_wrong_loses_to_one_that_is_right(monkeypatch, transition):
    X, y = digits()
    observed = corrupt_labels(y, transition, random_state=0)
    right, wrong = transition, np.roll(transition, 3, axis=1)
    monkeypatch.setattr(stages, "mixture_start", lambda *a, **k: wrong)
    monkeypatch.setattr(stages, "confident_start", lambda *a, **k: right)
    monkeypatch.setattr(stages, "hard_start", lambda *a, **k: wrong)
    estimator = classifier(max_epochs=20, early_stopping=True, hidden_layer_sizes=(100,))
    estimator.fit(X, observed)
    assert transition_matrix_error(estimator.initial_transition_matrix_, right) < 1e-6


# --- Poor data, end to end ----------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:EM did not converge")
@pytest.mark.parametrize("early_stopping", [True, False])
@pytest.mark.parametrize("init", ["auto", "cluster", "confusion"])
@pytest.mark.parametrize("params", [{}, {"noise_model": "c"}, {"method": "em"}], ids=str)
@pytest.mark.parametrize("kind", ["constant", "binary", "rare class"])
def test_poor_data_are_learned_without_a_warning(kind, params, init, early_stopping):
    X, y = blobs()
    if kind == "constant":
        X = np.ones((120, 1))
    elif kind == "binary":
        X = (y[:, None] == 1).astype(float)
    else:
        y[y == 2] = 0
        y[5] = 2
    budget = {"max_epochs": 2, "max_em_iter": 2, "early_stopping": early_stopping}
    estimator = classifier(transition_init=init, **budget, **params).fit(X, y)
    assert_allclose(estimator.transition_matrix_.sum(axis=1), 1.0, atol=1e-6)
    assert_allclose(estimator.predict_proba(X).sum(axis=1), 1.0, atol=1e-6)


# --- Expectation maximisation -------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weighted", [False, True])
def test_em_on_a_convex_problem_never_lowers_the_likelihood(seed, weighted):
    X, y = blobs(150, rate=0.3)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    weight = np.random.default_rng(seed).uniform(0.5, 2.0, 150) if weighted else None
    estimator = NoisyLabelClassifier(
        nn.Identity,
        method="em",
        transition_init=uniform_transition(3, 0.3),
        transition_prior=0.0,
        optimizer=torch.optim.SGD,
        lr=0.2,
        batch_size=150,
        max_em_iter=60,
        tol=0.0,
        random_state=seed,
    )
    with pytest.warns(ConvergenceWarning):
        estimator.fit(X, y, weight)
    log_likelihood = np.array(estimator.history_[:, "log_likelihood"])
    assert len(log_likelihood) == 60
    assert np.diff(log_likelihood).min() >= -1e-12
    assert log_likelihood[-1] > log_likelihood[0] + 0.1
    final = estimator.predict_noisy_proba(X)[np.arange(150), y]
    assert np.average(np.log(final), weights=weight) >= log_likelihood[-1] - 1e-12


def test_matrix_of_an_em_step_is_the_closed_form_with_the_start_as_evidence():
    X, y = blobs(60)
    start = uniform_transition(3, 0.2)
    params = {"method": "em", "transition_init": start, "lr": 1e-12, "max_em_iter": 1}
    with pytest.warns(ConvergenceWarning):
        for prior in (0.0, 1.0, 2.5):
            estimator = classifier(transition_prior=prior, **params).fit(X, y)
            clean = estimator.predict_proba(X)  # the network hardly moved
            counts = prior * len(y) / 3 * start
            for t in range(60):
                posterior = clean[t] * start[:, y[t]]
                counts[:, y[t]] += posterior / posterior.sum()
            expected = counts / counts.sum(axis=1, keepdims=True)
            assert_allclose(estimator.transition_matrix_, expected, atol=1e-6)


class Rows(Callback):
    """Keep the rows of every epoch, wherever the callback was copied to."""

    seen = []

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        self.seen.append((dataset_train.rows.rows, dataset_valid.rows.rows))


def test_em_does_not_see_the_rows_that_are_held_out(monkeypatch):
    X, y = blobs(100)
    params = {"method": "em", "transition_init": uniform_transition(3, 0.2), "max_em_iter": 1}
    params |= {"early_stopping": True, "validation_fraction": 0.5, "max_epochs": 1, "lr": 1e-12}
    seen = []
    e_step = Trainer._e_step

    def record(self, posterior):
        result = e_step(self, posterior)
        seen.append((self.train_rows, posterior.clone()))
        return result

    monkeypatch.setattr(Trainer, "_e_step", record)
    with pytest.warns(ConvergenceWarning):
        classifier(transition_prior=0.0, callbacks=[Rows], **params).fit(X, y)
    rows, posterior = seen[0]
    trained, held_out = Rows.seen[-1]
    assert_array_equal(trained, rows)
    assert set(trained).isdisjoint(held_out)
    sums = posterior.sum(dim=1).numpy()
    assert len(rows) == 50
    assert_allclose(sums[rows], 1.0)
    assert_allclose(np.delete(sums, rows), 0.0)
