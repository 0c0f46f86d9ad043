"""The trainer: what it holds out, where it starts from, what it keeps, and what EM does."""

import copy
import dataclasses
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits, make_blobs
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from sknoisy import NoisyLabelClassifier
from sknoisy._net.net import SkorchNet
from sknoisy._net.stopping import BestWeights
from sknoisy._stages.em import ClosedFormSteps
from sknoisy._stages.folds import stratified_parts
from sknoisy._stages.selection import Candidate
from sknoisy._stages.stages import Stages
from sknoisy._training import noise_estimates, trials
from sknoisy._training.noise_estimates import NoiseEstimator
from sknoisy._training.trainer import Trainer
from sknoisy._transition.starts import Estimate
from sknoisy.exceptions import UnreliableFitWarning
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import corrupt_labels, pair_transition, uniform_transition


def blobs(n_samples=120, rate=0.2):
    X, y = make_blobs(n_samples, centers=3, cluster_std=1.0, random_state=2)
    return X, corrupt_labels(y, pair_transition(3, rate), random_state=0)


def classifier(**params):
    """Return a small classifier that keeps its noise model, whatever it is worth."""
    defaults = {"random_state": 0, "hidden_layer_sizes": (16,), "select_noise_model": False}
    return NoisyLabelClassifier(**(defaults | params))


@pytest.fixture
def spy(monkeypatch):
    """Record the stages of a fit: rows, weights before, epochs allowed, and the end."""
    seen = []
    train_stage = SkorchNet.train_stage

    def record(self, stage, train, valid, **params):
        entry = {
            "stage": stage,
            "rows": [None if d is None else d.rows for d in (train, valid)],
            "state": copy.deepcopy(self.network.state_dict()),
            "data": train,
            **params,
        }
        seen.append(entry)
        entry["end"] = train_stage(self, stage, train, valid, **params)
        return entry["end"]

    monkeypatch.setattr(SkorchNet, "train_stage", record)
    return seen


def same_network(state, other):
    names = [name for name in state if not name.startswith("noise.")]
    return all(torch.equal(state[name], other[name]) for name in names)


def untrained(first):
    """Return what lets all starts from one on compete without a short training."""

    def ahead(self, plain, before, starts):
        return [self._candidate("start", start, before) for start in starts[first:]]

    return ahead


def rig_starts(monkeypatch, likelihoods=(-1.0, -1.0), **matrices):
    """Let the starts of the trainer return these matrices, and that of uniform noise none."""
    for name, matrix in {"uniform": np.eye(len(matrices["mixture"])), **matrices}.items():
        found = matrix
        if name in ("calibrated", "mixture"):
            found = Estimate(matrix, likelihoods[name == "mixture"])
        monkeypatch.setattr(noise_estimates, f"{name}_start", lambda *a, found=found, **k: found)


# --- Cross-fitting ------------------------------------------------------------------------------


@pytest.mark.parametrize("n_parts", [2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_parts_are_stratified(seed, n_parts):
    target = np.repeat([0, 1, 2, 3], [100, 31, 2, 7])
    part = stratified_parts(target, seed, n_parts)
    assert set(part) == set(range(n_parts))
    for label in range(4):
        counts = np.bincount(part[target == label], minlength=n_parts)
        assert np.ptp(counts) <= 1
    assert not np.array_equal(part, stratified_parts(target, seed + 1, n_parts))
    assert_array_equal(part, stratified_parts(target, seed, n_parts))


@pytest.mark.parametrize(("n_samples", "n_parts"), [(120, 4), (999, 4), (1000, 2)])
@pytest.mark.parametrize("params", [{}, {"noise_model": "c"}, {"noise_model": None}], ids=str)
def test_each_part_is_held_out_from_the_network_trained_on_the_others(
    spy, monkeypatch, params, n_samples, n_parts
):
    monkeypatch.setattr(Trainer, "_ahead", untrained(1))  # one start, which none leaves behind
    classifier(max_epochs=2, **params).fit(*blobs(n_samples))
    parts = [row for row in spy if row["rows"][0] is not None and row["stage"] != "start"]
    assert len(parts) % n_parts == 0
    for at in range(0, len(parts), n_parts):
        rows = parts[at : at + n_parts]
        assert len({row["stage"] for row in rows}) == 1
        for row in rows:
            train, held_out = row["rows"]
            assert_array_equal(np.sort(np.r_[train, held_out]), np.arange(n_samples))
        held_out = np.concatenate([row["rows"][1] for row in rows])
        assert_array_equal(np.sort(held_out), np.arange(n_samples))
    last = params.get("noise_model", "s") or "baseline"
    assert spy[-1]["rows"] == [None, None]
    assert spy[-1]["stage"] == last


@pytest.mark.parametrize("method", ["direct", "em"])
def test_all_stages_start_from_the_same_new_weights_when_parts_are_held_out(spy, method):
    classifier(method=method, max_epochs=3, max_em_iter=3).fit(*blobs())
    joint = {"direct": "s", "em": "em"}[method]
    names = [row["stage"] for row in spy]
    assert names[:4] == ["baseline"] * 4
    assert names[-1] == joint
    assert names.count(joint) > 4
    for row in spy:
        assert same_network(row["state"], spy[0]["state"])


def test_c_model_starts_from_new_weights_and_the_matrix_of_the_s_model(spy):
    estimator = classifier(noise_model="c", max_epochs=3).fit(*blobs())
    s, c = spy[-2:]
    assert (s["stage"], c["stage"]) == ("s", "c")
    assert s["rows"] == c["rows"] == [None, None]
    assert same_network(c["state"], spy[0]["state"])
    assert not (c["state"]["noise.weight"]).any()
    moved = np.abs(np.exp(c["state"]["noise.bias"].numpy()) - estimator.initial_transition_matrix_)
    assert 1e-5 < moved.max() < 0.1


def test_with_rows_held_out_the_c_model_goes_on_from_the_s_model(spy, monkeypatch):
    monkeypatch.setattr(Trainer, "_keeps_baseline", lambda self, plain: False)
    rig_starts(
        monkeypatch,
        calibrated=uniform_transition(3, 0.1),
        **dict.fromkeys(("mixture", "confident", "hard"), pair_transition(3, 0.3)),
    )
    monkeypatch.setattr(trials, "ERRORS_OF_SIMPLEST", 0.0)
    classifier(noise_model="c", max_epochs=5, early_stopping=True).fit(*blobs())
    names = [row["stage"] for row in spy]
    assert names == ["baseline", *["start"] * 4, "s", "c"]
    states = {row["stage"]: row["state"] for row in spy}
    assert same_network(states["start"], states["baseline"])  # from new weights
    assert not same_network(states["s"], states["baseline"])  # from those of the short training
    assert not same_network(states["c"], states["s"])
    assert not states["c"]["noise.weight"].any()
    held_out = [row["rows"][1] for row in spy]
    for rows in held_out:
        assert_array_equal(rows, held_out[0])


@pytest.mark.parametrize("early_stopping", [True, "auto"])
def test_a_trained_baseline_goes_on_from_the_confusion_start(spy, early_stopping):
    params = {"transition_init": "confusion", "early_stopping": early_stopping}
    classifier(max_epochs=5, **params).fit(*blobs())
    fresh = spy[0]["state"]
    for row in spy:
        assert same_network(row["state"], fresh) == (row["stage"] == "baseline")


def test_a_stage_sees_the_same_order_of_rows_whatever_came_before_it(spy):
    # Otherwise what is compared would differ by chance, and no noise model would not be None.
    X, y = blobs()
    plain = classifier(noise_model=None, max_epochs=4, batch_size=16, dropout=0.2).fit(X, y)
    alone = [row["end"] for row in spy]
    rows = len(spy)
    classifier(max_epochs=4, batch_size=16, dropout=0.2).fit(X, y)
    assert [row["end"] for row in spy[rows : rows + 2]] == alone[:2]
    losses = plain.history_[:, "train_loss"][:2]
    again = classifier(max_epochs=4, batch_size=16, dropout=0.2).fit(X, y)
    assert again.history_[:, "train_loss"][:2] == losses


def test_of_a_half_a_tenth_or_a_thousand_rows_are_watched(spy):
    X, y = make_blobs(2600, centers=2, random_state=0)
    classifier(early_stopping=False, max_epochs=1).fit(X, y)
    for row in spy[:2]:
        train, watched = row["rows"]
        assert (len(train), len(watched)) == (1300, 1000)
        assert set(train).isdisjoint(watched)


# --- How long the stages are ---------------------------------------------------------------------


@pytest.mark.parametrize(("n_samples", "n_parts", "share"), [(300, 4, 0.866), (1000, 2, 0.7071)])
@pytest.mark.parametrize("noise_model", [None, "s", "c"])
def test_all_rows_are_gone_over_for_most_of_the_best_epochs_of_the_parts(
    spy, monkeypatch, noise_model, n_samples, n_parts, share
):
    monkeypatch.setattr(Trainer, "_ahead", untrained(1))  # one start, which none leaves behind
    X, y = blobs(n_samples)
    classifier(noise_model=noise_model, lr=0.01).fit(X, y)
    last = [row for row in spy if row["rows"][0] is None]
    for row in last:
        parts = [r for r in spy if r["stage"] == row["stage"] and r["rows"][0] is not None]
        epochs = np.reshape([part["end"].best_epoch for part in parts], (-1, n_parts)).mean(axis=1)
        assert any(row["max_epochs"] == max(1, round(share * mean)) for mean in epochs)
        assert row["end"].best_epoch == row["max_epochs"]
    assert len(last) == (2 if noise_model == "c" else 1)


@pytest.mark.parametrize("early_stopping", [True, False, "auto"])
@pytest.mark.parametrize("noise_model", [None, "s", "c"])
def test_no_stage_is_longer_than_max_epochs(spy, early_stopping, noise_model):
    params = {"noise_model": noise_model, "early_stopping": early_stopping, "max_epochs": 3}
    estimator = classifier(**params).fit(*blobs())
    assert spy
    for row in spy:
        assert row["max_epochs"] <= 3
    assert len(estimator.history_) <= 3 * len(spy)


@pytest.mark.parametrize("noise_model", [None, "s", "c"])
def test_without_early_stopping_the_last_training_has_all_the_epochs_asked_for(spy, noise_model):
    params = {"early_stopping": False, "max_epochs": 37, "lr": 0.05, "n_iter_no_change": 1}
    estimator = classifier(noise_model=noise_model, **params).fit(*blobs())
    last = [row for row in spy if row["rows"][0] is None]
    assert [row["end"].best_epoch for row in last] == [37] * (2 if noise_model == "c" else 1)
    names = estimator.history_[:, "stage"]
    assert names[-37:] == [noise_model or "baseline"] * 37


def test_a_stage_ends_when_the_calibrated_loss_of_held_out_rows_has_not_fallen(spy):
    X, y = blobs(400)
    params = {"early_stopping": True, "noise_model": None, "lr": 0.05, "n_iter_no_change": 3}
    estimator = classifier(batch_size=8, validation_fraction=0.3, **params).fit(X, y)
    losses = np.array(estimator.history_[:, "calibrated_valid_loss"])
    (row,) = spy
    assert row["patience"] == 3
    assert row["end"].stopped
    assert row["end"].best_epoch == np.argmin(losses) + 1
    assert len(losses) - row["end"].best_epoch <= 3
    # Calibration never makes the loss of held-out rows much higher.
    assert (losses <= np.array(estimator.history_[:, "valid_loss"]) + 1e-3).all()


@pytest.mark.parametrize(
    ("n_samples", "batch_size", "expected"),
    [(160, 60, 20), (120, 6, 4), (400, 20, 4), (160, 120, 40)],
)
def test_patience_is_forty_steps_at_least(spy, n_samples, batch_size, expected):
    data = blobs(n_samples)
    classifier(noise_model=None, max_epochs=2, batch_size=batch_size).fit(*data)
    assert spy[0]["patience"] == expected


@pytest.mark.parametrize(
    ("n_samples", "batch_size", "n_epochs"),
    [(63, "auto", 150), (64, "auto", 20_000), (2600, 100, 770), (3000, 5, 40)],
)
def test_auto_allows_twenty_thousand_steps_and_forty_epochs(
    spy, monkeypatch, n_samples, batch_size, n_epochs
):
    monkeypatch.setattr(BestWeights, "update", lambda self, loss: True)
    X, y = blobs(n_samples)
    params = {"batch_size": batch_size, "early_stopping": n_samples >= 64}
    classifier(noise_model=None, **params).fit(X, y)
    assert spy[0]["max_epochs"] == n_epochs


# --- The choice among starts --------------------------------------------------------------------


def test_a_baseline_that_used_up_its_epochs_is_gone_on_with(spy):
    classifier(max_epochs=3, lr=1e-3, early_stopping=True).fit(*blobs())
    states = {row["stage"]: row["state"] for row in spy}
    assert not same_network(states["s"], states["baseline"])


@pytest.mark.parametrize(("best_epoch", "is_kept"), [(6, False), (7, True)])
def test_the_epochs_a_baseline_needed_end_with_its_best_one(spy, monkeypatch, best_epoch, is_kept):
    """Beyond half of them joint training goes on from it, however many epochs there were."""
    train_stage = SkorchNet.train_stage

    def best_at(self, stage, *rest, **params):
        end = train_stage(self, stage, *rest, **params)
        return end._replace(best_epoch=best_epoch) if stage == "baseline" else end

    monkeypatch.setattr(SkorchNet, "train_stage", best_at)
    classifier(max_epochs=12, lr=1e-3, early_stopping=True).fit(*blobs())
    new = next(row["state"] for row in spy if row["stage"] == "baseline")
    tried = [row["state"] for row in spy if row["stage"] == "start"][2:4]
    assert tried
    for state in tried:
        assert same_network(state, new) != is_kept


def test_every_start_is_tried_from_the_same_baseline_and_leaves_nothing_behind(spy, monkeypatch):
    monkeypatch.setattr(Trainer, "_keeps_baseline", lambda self, plain: False)
    classifier(max_epochs=5, early_stopping=True).fit(*blobs())
    tried = [row["state"] for row in spy if row["stage"] == "start"]
    assert same_network(tried[0], tried[1])  # confident and hard
    assert not same_network(tried[0], spy[0]["state"])
    # The winner and the other starts are then ahead or behind from new weights.
    joint = spy[-1]["state"]
    from_new = [state for state in tried[2:] if same_network(state, spy[0]["state"])]
    assert len(from_new) >= 3
    assert not same_network(joint, spy[0]["state"])  # it goes on from one of them
    assert any(torch.equal(joint["noise.start"], state["noise.start"]) for state in from_new)
    biases = [state["noise.bias"] for state in tried]
    assert not torch.equal(biases[0], biases[1])


@pytest.mark.parametrize(
    ("losses", "winner"),
    [
        ([0.7, 0.8], "confident"),
        ([0.8, 0.7], "hard"),
        ([0.7, 0.7], "confident"),
        ([0.7004, 0.7], "confident"),
        ([0.7, 0.6985], "hard"),
    ],
)
def test_of_two_ways_to_count_that_with_the_likeliest_held_out_labels_competes(
    monkeypatch, losses, winner
):
    starts = {
        "calibrated": uniform_transition(3, 0.05),
        "mixture": uniform_transition(3, 0.1),
        "confident": uniform_transition(3, 0.2),
        "hard": uniform_transition(3, 0.3),
    }
    rig_starts(monkeypatch, **starts)
    remaining = list(losses)
    monkeypatch.setattr(Stages, "loss_after", lambda *args: remaining.pop(0))
    competing = []

    def ahead(self, plain, before, starts):
        competing.extend(start.name for start in starts)
        return untrained(2)(self, plain, before, starts)

    monkeypatch.setattr(Trainer, "_ahead", ahead)
    estimator = classifier(max_epochs=2, early_stopping=True).fit(*blobs())
    assert remaining == []
    assert competing == ["calibrated", "mixture", winner]
    assert_allclose(estimator.initial_transition_matrix_, starts[winner], atol=1e-7)


@pytest.mark.parametrize(
    ("noise_model", "gain", "trained", "epochs"),
    [
        ("s", 0.41, ["mixture"], [4, 4]),
        ("s", 0.39, ["calibrated", "mixture"], [4, 4, 2, 2]),  # the simplest is spared
        ("s", 0.09, ["calibrated", "mixture"], [4, 4, 2, 2]),
        ("s", -0.09, ["calibrated"], [4, 4, 2, 2]),
        ("s", -0.19, ["calibrated"], [4, 4, 2, 2]),
        ("s", -0.21, ["calibrated"], [4, 4]),
        ("c", 0.41, ["mixture"], [4, 4]),
    ],
)
def test_starts_are_both_trained_unless_one_is_clearly_ahead(
    monkeypatch, spy, noise_model, gain, trained, epochs
):
    def rigged(self, other, truly=Candidate.gain):
        if self.stage != "start":
            return truly(self, other)
        return ((self.start == "mixture") - (other.start == "mixture")) * gain, 0.1

    monkeypatch.setattr(Candidate, "gain", rigged)
    others = dict.fromkeys(("mixture", "confident", "hard"), np.eye(3))
    rig_starts(monkeypatch, calibrated=uniform_transition(3, 0.1), **others)
    estimator = classifier(noise_model=noise_model, max_epochs=6, early_stopping=True)
    estimator.fit(*blobs())
    reports = [report for report in estimator.selection_ if report["noise_model"] != "c"]
    assert [report["start"] for report in reports] == [None, *trained]
    short = [row for row in spy if row["stage"] == "start"][2:]
    assert [row["max_epochs"] for row in short] == epochs


@cache
def digits():
    X, y = load_digits(return_X_y=True)
    return X / 16, y


@pytest.mark.parametrize("transition", [np.eye(10), pair_transition(10, 0.4)])
def test_a_start_that_is_wrong_loses_to_one_that_is_right(monkeypatch, transition):
    X, y = digits()
    observed = corrupt_labels(y, transition, random_state=0)
    right, wrong = transition, np.roll(uniform_transition(10, 0.8), 3, axis=1)
    rig_starts(monkeypatch, calibrated=wrong, mixture=wrong, hard=wrong, confident=right)
    estimator = classifier(max_epochs=20, early_stopping=True, hidden_layer_sizes=(100,))
    estimator.fit(X, observed)
    assert transition_matrix_error(estimator.initial_transition_matrix_, right) < 1e-6


@pytest.mark.parametrize("right", ["calibrated", "mixture"])
def test_starts_of_few_rows_compete_until_one_is_clearly_ahead(spy, monkeypatch, right):
    X, y = blobs(300, rate=0.0)
    starts = dict.fromkeys(("calibrated", "mixture"), pair_transition(3, 0.45)) | {right: np.eye(3)}
    rig_starts(monkeypatch, (-1.0, -0.5), **starts)
    estimator = classifier(lr=0.01, max_epochs=30).fit(X, y)
    assert_allclose(estimator.initial_transition_matrix_, np.eye(3), atol=1e-7)
    # In one of the parts both at most are trained in full, in the others the right one alone.
    names = [row["stage"] for row in spy]
    assert names[:6] == ["baseline"] * 4 + ["start"] * 2
    assert names[6:] in (["s"] * 5, ["s"] * 6)
    assert [report["start"] for report in estimator.selection_] == [None, right]


@pytest.mark.parametrize(
    ("trial", "first_part", "trained"),
    [(0.41, 0.0, [1, 1, 1, 1]), (0.39, 0.21, [2, 1, 1, 1]), (0.39, -0.19, [2, 2, 2, 2])],
)
def test_a_start_that_is_clearly_behind_in_the_first_part_is_not_trained_in_the_others(
    monkeypatch, spy, trial, first_part, trained
):
    def rigged(self, other, truly=Candidate.gain):
        if self.start != "mixture" or other.start != "calibrated" or self.stage == "baseline":
            return truly(self, other)
        return (trial if self.stage == "start" else first_part), 0.1

    monkeypatch.setattr(Candidate, "gain", rigged)
    starts = {"calibrated": uniform_transition(3, 0.1), "mixture": pair_transition(3, 0.3)}
    rig_starts(monkeypatch, (-1.0, -0.5), **starts)
    classifier(max_epochs=3).fit(*blobs(300))
    joint = [row for row in spy if row["stage"] == "s" and row["rows"][0] is not None]
    held_out = [tuple(row["rows"][1]) for row in joint]
    assert [held_out.count(rows) for rows in dict.fromkeys(held_out)] == trained


@pytest.mark.parametrize("early_stopping", [True, "auto"])
def test_starts_that_are_all_but_the_same_are_one(monkeypatch, spy, early_stopping):
    nearly = uniform_transition(3, 0.119)
    others = dict.fromkeys(("mixture", "confident", "hard"), nearly)
    rig_starts(monkeypatch, (-1.0, -0.5), calibrated=uniform_transition(3, 0.1), **others)
    estimator = classifier(max_epochs=6, early_stopping=early_stopping).fit(*blobs(300))
    assert [report["start"] for report in estimator.selection_] == [None, "calibrated"]
    assert [row["stage"] for row in spy].count("start") <= 3  # which of the others


@pytest.mark.parametrize("early_stopping", [True, "auto"])
@pytest.mark.parametrize(("rate", "trained"), [(0.004, False), (0.06, True)])
def test_starts_that_say_no_noise_are_not_trained_from(
    monkeypatch, spy, early_stopping, rate, trained
):
    names = ("calibrated", "mixture", "confident", "hard")
    rig_starts(monkeypatch, (-1.0, -0.5), **dict.fromkeys(names, uniform_transition(3, rate)))
    params = {"max_epochs": 6, "early_stopping": early_stopping, "select_noise_model": True}
    estimator = classifier(**params).fit(*blobs(300))
    assert ("s" in [row["stage"] for row in spy]) == trained
    # Plain training was not at its end, and went on to be compared with.
    kinds = [report["noise_model"] for report in estimator.selection_]
    assert kinds[:3] == [None, *(["s", None] if trained else [])]
    # Not where the noise model is taken for granted.
    rows = len(spy)
    classifier(**params | {"select_noise_model": False}).fit(*blobs(300))
    assert "s" in [row["stage"] for row in spy[rows:]]


@cache
def many_classes():
    """Return 60 classes in few features, a third of whose labels are those of the next class."""
    X, y = make_blobs(3000, 8, centers=60, cluster_std=4.0, random_state=0)
    return X, corrupt_labels(y, pair_transition(60, 0.3), random_state=0)


@pytest.mark.parametrize(
    ("estimate", "n_tried"), [(pair_transition(60, 0.3), 1), (pair_transition(60, 0.3).T, 0)]
)
def test_with_many_classes_the_noise_is_estimated_again_as_long_as_it_helps(
    monkeypatch, spy, estimate, n_tried
):
    monkeypatch.setattr(Trainer, "_keeps_baseline", lambda self, plain: False)
    # The start takes half of the labels for wrong, wherever they went.
    poor = uniform_transition(60, 0.5)
    rig_starts(monkeypatch, **dict.fromkeys(("calibrated", "mixture", "confident", "hard"), poor))
    monkeypatch.setattr(noise_estimates, "recounted_start", lambda *args, **kwargs: estimate)
    monkeypatch.setattr(noise_estimates, "are_few_rows", lambda *args: False)
    estimator = classifier(max_epochs=12, lr=0.01).fit(*many_classes())
    starts = [report["start"] for report in estimator.selection_]
    assert starts == [None, "calibrated"] + ["recounted"] * n_tried
    right = estimate if n_tried else poor
    assert_allclose(estimator.initial_transition_matrix_, right, atol=1e-3)
    joint = [row["state"] for row in spy if row["stage"] == "s"]
    assert len(joint) == 1 + n_tried
    for state in joint:
        assert same_network(state, spy[0]["state"])  # from new weights


@pytest.mark.parametrize("sparse", [True, False])
def test_with_many_classes_one_wrong_label_each_is_sought_unless_it_explains_less(
    monkeypatch, sparse
):
    monkeypatch.setattr(Trainer, "_keeps_baseline", lambda self, plain: False)
    monkeypatch.setattr(noise_estimates, "are_few_rows", lambda *args: False)
    true, elsewhere = pair_transition(60, 0.3), np.roll(np.eye(60), 7, axis=1)
    if not sparse:
        names = ("calibrated", "mixture", "confident", "hard")
        rig_starts(monkeypatch, **dict.fromkeys(names, uniform_transition(60, 0.3)))
        monkeypatch.setattr(NoiseEstimator, "_is_behind", lambda *args: False)
        found = Estimate(0.6 * np.eye(60) + 0.4 * elsewhere, 0.0)
        monkeypatch.setattr(noise_estimates, "sparse_start", lambda *args, **kwargs: found)
        monkeypatch.setattr(noise_estimates, "recounted_start", lambda *args, **kwargs: true)
    estimator = classifier(max_epochs=12, lr=0.01).fit(*many_classes())
    starts = [report["start"] for report in estimator.selection_[2:]]
    if sparse:
        assert set(starts) == {"sparse"}
        assert transition_matrix_error(estimator.transition_matrix_, true) < 0.1
    else:
        assert starts[:2] == ["sparse", "recounted"] and starts.count("sparse") == 1
        assert estimator.transition_matrix_[0, 1] > 0.2 > estimator.transition_matrix_[1, 0]


@pytest.mark.parametrize(("early_stopping", "far"), [(True, True), (True, False), ("auto", False)])
@pytest.mark.parametrize(("sparse", "n_tried"), [(True, 1), (False, 0)])
def test_where_rows_are_some_training_goes_on_with_an_estimate_that_explains_more(
    monkeypatch, spy, early_stopping, far, sparse, n_tried
):
    monkeypatch.setattr(trials, "are_far", lambda *args: far)
    monkeypatch.setattr(Trainer, "_keeps_baseline", lambda self, plain: False)
    X, y = make_blobs(600, 8, centers=6, cluster_std=3.0, random_state=0)
    observed = corrupt_labels(y, pair_transition(6, 0.4), random_state=0)
    poor = uniform_transition(6, 0.5)
    rig_starts(monkeypatch, **dict.fromkeys(("calibrated", "mixture", "confident", "hard"), poor))
    monkeypatch.setattr(NoiseEstimator, "_is_behind", lambda *args: False)
    found = Estimate(pair_transition(6, 0.4) if sparse else pair_transition(6, 0.4).T, 0.0)
    monkeypatch.setattr(noise_estimates, "sparse_start", lambda *args, **kwargs: found)
    params = {"max_epochs": 15, "lr": 0.01, "early_stopping": early_stopping}
    estimator = classifier(**params).fit(X, observed)
    starts = [report["start"] for report in estimator.selection_]
    assert starts == [None, "calibrated", *["sparse"] * n_tried]
    joint = [row["state"] for row in spy if row["stage"] == "s" and row["rows"][0] is not None]
    assert same_network(joint[0], spy[0]["state"])
    if sparse:
        # From the same weights, or from new ones where the estimate is far from the start, or each
        # part is held out in turn.
        assert same_network(joint[-1], spy[0]["state"]) == (far or early_stopping == "auto")


@pytest.mark.parametrize(
    "params", [{"transition_init": "cluster"}, {"early_stopping": False}], ids=str
)
def test_the_noise_is_not_estimated_again_from_other_starts_or_without_held_out_rows(
    monkeypatch, spy, params
):
    monkeypatch.setattr(noise_estimates, "are_few_rows", lambda *args: False)
    estimator = classifier(max_epochs=2, lr=0.01, **params).fit(*many_classes())
    assert "recounted" not in [report["start"] for report in estimator.selection_]


@cache
def few_rows(n_rows=15):
    """Return few rows of twelve classes, two fifths of whose labels are those of the next class."""
    X, y = make_blobs(12 * n_rows, 8, centers=12, cluster_std=2.5, random_state=1)
    transition = pair_transition(12, 0.4)
    return X, corrupt_labels(y, transition, random_state=1), transition


def test_with_few_rows_of_a_class_one_wrong_label_of_each_is_sought_as_long_as_it_helps(spy):
    X, y, transition = few_rows()
    estimator = classifier(max_epochs=30, lr=0.01, select_noise_model=False).fit(X, y)
    starts = [report["start"] for report in estimator.selection_]
    assert "sparse" in starts
    assert starts.count("sparse") <= 10  # five with balanced classes, five without
    assert "sparse" not in starts[: -starts.count("sparse")]  # after all others
    assert transition_matrix_error(estimator.transition_matrix_, transition) < 0.2
    assert estimator.noise_model_ == "s"


def test_an_estimate_from_few_rows_is_judged_by_parts_that_it_does_not_come_from(monkeypatch):
    X, y, _ = few_rows()
    made = []

    def noted(self, stage, start, before, truly=Trainer._candidate):
        made.append(truly(self, stage, start, before))
        return made[-1]

    monkeypatch.setattr(Trainer, "_candidate", noted)
    classifier(max_epochs=6, lr=0.02).fit(X, y)
    found = {candidate.start: candidate for candidate in made if candidate.start}
    assert {"calibrated", "mixture", "sparse"} <= set(found)
    for candidate in found.values():
        assert len(candidate.of_folds) == 4
        assert candidate.penalty == 0
        for number, matrix in enumerate(candidate.of_folds):
            assert candidate.start_in(number) is matrix
            assert_allclose(matrix.sum(axis=1), 1)
            assert not np.array_equal(matrix, candidate.transition)


def test_what_no_label_of_a_part_has_told_does_not_depend_on_them(monkeypatch):
    X, y, _ = few_rows()
    seen = []

    def noted(self, predict, truly=NoiseEstimator.estimates):
        log_proba = predict(np.arange(len(self.data))).astype(np.float64).__getitem__
        valid, target = self.folds[1].valid, self.data.target.copy()
        target[valid] = np.random.RandomState(0).permutation(target[valid])
        others = dataclasses.replace(self.data, target=target)
        of_others = NoiseEstimator(others, self.config, self.folds, self.seed)
        seen.append((truly(self, log_proba), truly(of_others, log_proba)))
        return seen[0][0]

    monkeypatch.setattr(NoiseEstimator, "estimates", noted)
    classifier(max_epochs=3, lr=0.01).fit(X, y)
    ((found, other),) = seen
    for name in ("calibrated", "mixture"):
        same = [
            np.array_equal(*both)
            for both in zip(found[name].of_parts, other[name].of_parts, strict=True)
        ]
        assert same == [False, True, False, False]


def test_all_starts_of_few_rows_are_refined_until_one_leads_where_another_led(monkeypatch):
    X, y, transition = few_rows()
    firsts = []

    def noted(self, best, known, truly=Trainer._estimated_again):
        firsts.append(best.start)
        return truly(self, best, known)

    def found(self, predict, **options):
        return {"sparse": Estimate(transition, -1.0, of_parts=[transition] * 4)}

    monkeypatch.setattr(Trainer, "_estimated_again", noted)
    monkeypatch.setattr(NoiseEstimator, "recounts", found)
    estimator = classifier(max_epochs=3, lr=0.01).fit(X, y)
    assert set(firsts) == {"calibrated", "mixture"} and len(firsts) == 2
    assert [report["start"] for report in estimator.selection_].count("sparse") == 1


def test_a_sparse_start_pays_for_what_it_explains_of_its_own_labels(monkeypatch):
    X, y, _ = few_rows()
    costs = []

    def noted(self, start, transition, truly=NoiseEstimator.penalty):
        penalty = truly(self, start, transition)
        if start == "sparse":
            costs.append((penalty, self.optimism))
        return penalty

    monkeypatch.setattr(NoiseEstimator, "leaves_parts_out", False)
    monkeypatch.setattr(NoiseEstimator, "penalty", noted)
    classifier(max_epochs=10, lr=0.01).fit(X, y)
    assert costs and all(penalty == optimism > 0 for penalty, optimism in costs)


def test_an_estimate_that_is_clearly_behind_is_not_trained_with(monkeypatch, spy):
    X, y, _ = few_rows()
    monkeypatch.setattr(noise_estimates.NoiseEstimator, "_is_behind", lambda *args: True)
    estimator = classifier(max_epochs=10, lr=0.01, select_noise_model=False).fit(X, y)
    assert "sparse" not in [report["start"] for report in estimator.selection_]


@pytest.mark.parametrize(("n_classes", "n_rare", "n_rows"), [(14, 10, 25), (9, 2, 15)])
def test_few_rows_are_counted_among_the_classes_with_enough_labels(n_classes, n_rare, n_rows):
    sizes = np.r_[np.full(n_rare, 4), np.full(n_classes - n_rare, n_rows)]
    X, y = make_blobs(sizes, 8, centers=None, cluster_std=2.0, random_state=0)
    y = np.where(np.arange(len(y)) % 3, y, (y + 1) % n_classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreliableFitWarning)
        estimator = classifier(max_epochs=2, lr=0.01, select_noise_model=False).fit(X, y)
    assert_allclose(estimator.transition_matrix_.sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("left_out", [None, np.zeros(3)])
def test_an_estimate_that_cannot_be_compared_is_behind(left_out):
    sparse = Estimate(np.eye(3), 0.0, np.zeros(5))
    is_behind = noise_estimates.NoiseEstimator._is_behind
    assert is_behind(object(), sparse, Estimate(np.eye(3), 0.0, left_out))


def test_noise_of_one_class_among_many_is_noise():
    one = np.eye(200)
    one[3, :5] = 0.0, 0.0, 0.0, 0.7, 0.3
    assert not noise_estimates.say_no_noise([one])
    assert not noise_estimates.all_but_the_same(one, np.eye(200))
    assert noise_estimates.say_no_noise([uniform_transition(200, 0.004)])
    assert noise_estimates.all_but_the_same(uniform_transition(200, 0.019), np.eye(200))
    assert not noise_estimates.say_no_noise([uniform_transition(200, 0.004), one])


@pytest.mark.parametrize(("rate", "far"), [(0.09, False), (0.11, True)])
def test_matrices_are_far_where_one_label_in_ten_goes_elsewhere(rate, far):
    assert noise_estimates.are_far(pair_transition(4, rate), np.eye(4)) == far
    assert not noise_estimates.are_far(
        np.roll(np.eye(40), 1, axis=1), np.roll(np.eye(40), 1, axis=1)
    )
    one = np.eye(40)
    one[0] = one[1]
    assert not noise_estimates.are_far(one, np.eye(40))  # the mean over the classes


@pytest.mark.parametrize(("gain", "n_parts"), [(-0.01, 1), (0.01, 4)])
def test_a_c_model_that_explains_less_in_the_first_part_ends_there(monkeypatch, spy, gain, n_parts):
    def rigged(self, other, truly=Candidate.gain):
        return (gain, 0.1) if self.stage == "c" and other.stage == "s" else truly(self, other)

    monkeypatch.setattr(Candidate, "gain", rigged)
    starts = dict.fromkeys(("calibrated", "mixture"), pair_transition(3, 0.3))
    rig_starts(monkeypatch, (-1.0, -0.5), **starts)
    estimator = classifier(noise_model="c", max_epochs=3, select_noise_model=True)
    estimator.fit(*blobs(300))
    assert [row["stage"] for row in spy if row["rows"][0] is not None].count("c") == n_parts
    assert ("c" in [report["noise_model"] for report in estimator.selection_]) == (n_parts > 1)


@pytest.mark.parametrize(("gain", "tried"), [(0.0, 0), (0.02, 0), (0.03, 1)])
def test_a_mixture_is_tried_only_if_it_explains_more_than_its_entries_by_chance(
    spy, monkeypatch, gain, tried
):
    # Three classes on 120 rows: six entries, half a label each, are .025 a label.
    start = uniform_transition(3, 0.2)
    rig_starts(monkeypatch, (-1.0, -1.0 + gain), calibrated=start, mixture=start)
    monkeypatch.setattr(Trainer, "_ahead", untrained(0))
    monkeypatch.setattr(Trainer, "_not_behind", staticmethod(lambda tried: tried))
    estimator = classifier(max_epochs=2, select_noise_model=True).fit(*blobs())
    starts = [row["start"] for row in estimator.selection_ if row["noise_model"] == "s"]
    assert starts.count("mixture") == tried


@pytest.mark.parametrize("init", ["auto", "cluster"])
@pytest.mark.parametrize("early_stopping", [True, False])
def test_classes_with_fewer_than_ten_labels_keep_their_label_at_the_start(init, early_stopping):
    X, y = blobs(300, rate=0.3)
    X = np.r_[X, np.full((9, 2), 20.0), np.full((10, 2), -20.0)]
    y = np.r_[y, np.full(9, 3), np.full(10, 4)]
    params = {"max_epochs": 5, "early_stopping": early_stopping}
    start = classifier(transition_init=init, **params).fit(X, y).initial_transition_matrix_
    assert_array_equal(start[3], np.eye(5)[3])
    assert_array_equal(start[:, 3], np.eye(5)[3])
    assert_allclose(start.sum(axis=1), 1.0)
    assert start[:3, :3].min() < 1
    assert (1.0 - np.diag(start))[:3].max() > 0.01


@pytest.mark.parametrize("init", ["auto", "cluster"])
def test_without_two_classes_with_labels_enough_no_noise_is_assumed(init):
    X, _y = blobs(300, rate=0.0)
    names = np.r_[np.zeros(282, dtype=int), np.repeat([1, 2], 9)]
    estimator = classifier(transition_init=init, max_epochs=3).fit(X, names)
    assert estimator.noise_model_ is None
    assert_array_equal(estimator.transition_matrix_, np.eye(3))
    assert estimator.noise_rate_ == 0.0


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
        max_epochs=60,
        early_stopping=False,
        select_noise_model=False,
        random_state=seed,
    )
    with pytest.warns(ConvergenceWarning):
        estimator.fit(X, y, weight)
    log_likelihood = np.array(estimator.history_[-60:, "log_likelihood"])
    assert np.diff(log_likelihood).min() >= -1e-12
    assert log_likelihood[-1] > log_likelihood[0] + 0.1
    final = estimator.predict_noisy_proba(X)[np.arange(150), y]
    assert np.average(np.log(final), weights=weight) >= log_likelihood[-1] - 1e-12


def test_matrix_of_an_em_step_goes_to_the_closed_form_with_the_start_as_evidence():
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
            share = 1 / (1 + 20 * prior)
            expected = share * counts / counts.sum(axis=1, keepdims=True) + (1 - share) * start
            assert_allclose(estimator.transition_matrix_, expected, atol=1e-6)


def test_em_does_not_see_the_rows_that_are_held_out(spy, monkeypatch):
    counted, made = [], ClosedFormSteps.__init__

    def record(self, net, data, rows, **more):
        counted.append(rows)
        made(self, net, data, rows, **more)

    monkeypatch.setattr(ClosedFormSteps, "__init__", record)
    X, y = blobs(100)
    params = {"method": "em", "transition_init": uniform_transition(3, 0.2), "max_em_iter": 1}
    params |= {"early_stopping": True, "validation_fraction": 0.5, "max_epochs": 1, "lr": 1e-12}
    with pytest.warns(ConvergenceWarning):
        classifier(transition_prior=0.0, **params).fit(X, y)
    trained, held_out = spy[-1]["rows"]
    assert spy[-1]["stage"] == "em"
    assert set(trained).isdisjoint(held_out)
    assert len(trained) == 50
    assert_array_equal(np.sort(counted[-1]), np.sort(trained))
