"""The steps of fit, its results, and predictions that agree with each other."""

import copy
import re
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits, make_blobs, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from skorch.callbacks import Callback

from sknoisy import NoisyLabelClassifier
from sknoisy.exceptions import UnreliableFitWarning
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import corrupt_labels, pair_transition, random_transition, uniform_transition

PAIR = pair_transition(10, 0.3)
START = pair_transition(3, 0.1)
ALL_MODELS = {
    "plain": {"noise_model": None},
    "s": {},
    "c": {"noise_model": "c"},
    "em": {"method": "em"},
}
all_models = pytest.mark.parametrize("model", ALL_MODELS)
unconverged = pytest.mark.filterwarnings("ignore:EM did not converge")


def classifier(model="s", **params):
    """Return a small classifier that keeps its noise model, whatever it is worth."""
    defaults = {"random_state": 0, "hidden_layer_sizes": (16,), "select_noise_model": False}
    return NoisyLabelClassifier(**(defaults | ALL_MODELS[model] | params))


def blobs(n_samples=48, dtype=np.float64, rate=0.2, n_classes=3):
    X, y = make_blobs(n_samples, centers=n_classes, cluster_std=0.7, random_state=1)
    y_observed = corrupt_labels(y, pair_transition(n_classes, rate), exact=True, random_state=0)
    return X.astype(dtype), y_observed


@cache
def digits():
    X, y = load_digits(return_X_y=True)
    return train_test_split(
        (X / 16).astype(np.float32), y, test_size=0.3, stratify=y, random_state=0
    )


@cache
def fitted_on_digits(model, noisy=True):
    X, _, y, _ = digits()
    if noisy:
        y = corrupt_labels(y, PAIR, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return NoisyLabelClassifier(random_state=0, **ALL_MODELS[model]).fit(X, y)


def stages(estimator):
    """Names of the stages in their order."""
    names = estimator.history_[:, "stage"]
    return [name for name, last in zip(names, [None, *names[:-1]], strict=True) if name != last]


# --- The order of the stages --------------------------------------------------------------------


@unconverged
@pytest.mark.parametrize(
    ("model", "params", "expected"),
    [
        ("plain", {}, ["baseline"]),
        ("s", {}, ["baseline", "start", "s"]),
        ("c", {}, ["baseline", "start", "s", "c", "s", "c"]),  # in each part, and on all rows
        ("em", {}, ["baseline", "start", "em"]),
        ("s", {"transition_init": "confusion"}, ["baseline", "s", "baseline", "s"]),
        ("s", {"transition_init": np.eye(3)}, ["baseline", "s"]),
        ("s", {"transition_init": np.eye(3), "learn_transition": False}, ["s"]),
        ("s", {"transition_init": np.eye(3), "early_stopping": True}, ["baseline", "s"]),
        ("s", {"early_stopping": True}, ["baseline", "start", "s"]),
        ("c", {"transition_init": "cluster", "early_stopping": True}, ["baseline", "s", "c"]),
    ],
)
def test_stages_follow_the_method(model, params, expected):
    estimator = classifier(model, max_epochs=2, max_em_iter=2, **params).fit(*blobs(120))
    assert stages(estimator) == expected
    assert estimator.n_iter_ == len(estimator.history_)


@unconverged
@all_models
@pytest.mark.parametrize("early_stopping", [True, False])
def test_history_has_its_columns_and_log_likelihood_in_em_only(model, early_stopping):
    params = {"max_epochs": 2, "max_em_iter": 3, "early_stopping": early_stopping}
    estimator = classifier(model, **params).fit(*blobs(120))
    for row in estimator.history_:
        assert {"epoch", "stage", "train_loss", "dur"} <= row.keys()
        assert ("valid_loss" in row) == ("calibrated_valid_loss" in row)
        assert ("log_likelihood" in row) == (row["stage"] == "em")
        assert np.isfinite([value for key, value in row.items() if key.endswith("loss")]).all()
    # Without held-out rows the stages are watched by halves, unless nothing is to be chosen, and
    # the last one by nobody.
    watched = early_stopping or estimator.noise_model is not None
    assert ["valid_loss" in row for row in estimator.history_[:2]] == [watched, watched]
    assert ("valid_loss" in estimator.history_[-1]) == early_stopping


def test_each_stage_is_bounded_by_max_epochs():
    estimator = classifier("c", max_epochs=3, transition_init="confusion").fit(*blobs())
    assert estimator.history_[:, "stage"] == ["baseline"] * 3 + ["s"] * 3 + ["c"] * 3
    assert estimator.history_[:, "epoch"] == list(range(1, 10))


def test_without_a_noise_model_the_matrix_is_the_identity():
    estimator = classifier("plain", max_epochs=2).fit(*blobs())
    assert_array_equal(estimator.transition_matrix_, np.eye(3))
    assert_array_equal(estimator.initial_transition_matrix_, np.eye(3))
    assert estimator.noise_rate_ == 0.0


# --- Expectation maximisation -------------------------------------------------------------------


def test_a_doubt_about_a_fit_points_to_its_call():
    random = np.random.RandomState(0)
    X, y = random.normal(size=(200, 3)), random.randint(2, size=200)
    with pytest.warns(UnreliableFitWarning, match="no better than by their frequencies") as seen:
        classifier().fit(X, y)
    assert [warning.filename for warning in seen] == [__file__]


def test_em_warns_once_with_advice_when_it_did_not_converge():
    with pytest.warns(ConvergenceWarning, match=r"max_em_iter=2 .*Increase `max_em_iter`") as seen:
        classifier("em", max_em_iter=2, tol=0.0, transition_init=START).fit(*blobs())
    files = [warning.filename for warning in seen if warning.category is ConvergenceWarning]
    assert files == [__file__]


def test_em_stops_when_the_log_likelihood_changes_by_less_than_tol():
    params = {"tol": 1e-3, "transition_init": START}
    estimator = classifier("em", max_em_iter=500, **params).fit(*blobs())
    log_likelihood = np.array(estimator.history_[:, "log_likelihood"])
    change = np.abs(np.diff(log_likelihood))
    assert 2 < len(log_likelihood) < 500
    assert change[-1] < 1e-3 <= change[:-1].min()


@pytest.mark.parametrize("early_stopping", [False, True])
def test_em_says_how_many_iterations_it_had_and_not_how_many_epochs_there_were(early_stopping):
    X, y = blobs(120)
    params = {"max_em_iter": 3, "tol": 0.0, "transition_init": START, "max_epochs": 2}
    with pytest.warns(ConvergenceWarning, match="in max_em_iter=3 iterations") as seen:
        classifier("em", early_stopping=early_stopping, **params).fit(X, y)
    assert sum(warning.category is ConvergenceWarning for warning in seen) == 1


@unconverged
def test_em_of_a_single_iteration_says_that_it_did_not_converge():
    X, y = blobs(120)
    with pytest.warns(ConvergenceWarning, match="in max_em_iter=1 iterations"):
        classifier("em", max_em_iter=1, max_epochs=2).fit(X, y)


def test_em_that_is_not_kept_does_not_warn():
    X, y = blobs(120, rate=0.0)
    params = {"max_em_iter": 2, "tol": 0.0, "lr": 0.05, "select_noise_model": True}
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        estimator = classifier("em", transition_init=uniform_transition(3, 0.4), **params)
        assert estimator.fit(X, y).noise_model_ is None


@unconverged
def test_em_stops_at_max_em_iter():
    estimator = classifier("em", max_em_iter=5, tol=0.0, transition_init=START).fit(*blobs())
    assert estimator.history_[:, "stage"] == ["em"] * 5


@unconverged
def test_log_likelihood_of_em_is_that_of_the_observed_labels():
    X, y = blobs()
    weight = np.random.default_rng(0).integers(1, 4, len(y))
    params = {"tol": 0.0, "transition_init": pair_transition(3, 0.1), "transition_prior": 0.0}
    for sample_weight in (None, weight):
        before = classifier("em", max_em_iter=2, **params).fit(X, y, sample_weight)
        longer = classifier("em", max_em_iter=3, **params).fit(X, y, sample_weight)
        # The third E-step begins with the network and the matrix that two iterations leave.
        likelihood = before.predict_noisy_proba(X)[np.arange(len(y)), y]
        expected = np.average(np.log(likelihood), weights=sample_weight)
        assert_allclose(longer.history_[-1, "log_likelihood"], expected, rtol=1e-10)


def test_em_is_refused_for_noise_that_depends_on_the_features():
    with pytest.raises(ValueError, match=r"noise_model='c': the closed form .* the features"):
        classifier("c", method="em").fit(*blobs())


# --- Where the noise layer starts ---------------------------------------------------------------


@pytest.mark.parametrize("method", ["direct", "em"])
def test_a_known_matrix_is_kept(method):
    X, y = blobs()
    known = np.array([[0.7, 0.3, 0.0], [0.0, 0.9, 0.1], [0.25, 0.25, 0.5]])
    params = {"method": method, "transition_init": known, "learn_transition": False, "tol": 0.1}
    estimator = classifier(max_epochs=20, **params).fit(X, y)
    assert_allclose(estimator.transition_matrix_, known, atol=1e-7)
    assert_allclose(estimator.initial_transition_matrix_, known, atol=1e-7)
    assert_array_equal(known[0], [0.7, 0.3, 0.0])


def test_a_known_matrix_is_kept_when_a_fit_goes_on_through_it():
    X, y = blobs()
    known = pair_transition(3, 0.4)
    estimator = classifier(max_epochs=20, warm_start=True).fit(X, y)
    estimator.set_params(transition_init=known, learn_transition=False).fit(X, y)
    assert_allclose(estimator.transition_matrix_, known, atol=1e-7)


@pytest.mark.parametrize("init", ["auto", "confusion", "cluster"])
def test_fixed_matrix_needs_an_array(init):
    with pytest.raises(ValueError, match=rf"learn_transition=False needs .* got .*'{init}'"):
        classifier(transition_init=init, learn_transition=False).fit(*blobs())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("model", ["s", "c", "em"])
@unconverged
def test_confusion_start_is_the_formula_of_the_paper_over_the_training_rows(model, weighted):
    X, y = blobs()
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(y)) if weighted else None
    params = {"transition_init": "confusion", "max_epochs": 15, "max_em_iter": 1}
    estimator = classifier(model, **params).fit(X, y, weight)
    proba = classifier("plain", max_epochs=15).fit(X, y, weight).predict_proba(X)
    expected = np.zeros((3, 3))
    for t, observed in enumerate(y):
        expected[:, observed] += proba[t] * (1.0 if weight is None else weight[t])
    expected /= expected.sum(axis=1, keepdims=True)
    assert_allclose(estimator.initial_transition_matrix_, expected, atol=1e-7)


def test_a_given_start_is_in_the_order_of_classes():
    X, y = blobs(rate=0.0)
    names = np.array(["zebra", "ant", "mole"])
    start = np.array([[0.8, 0.2, 0.0], [0.0, 0.7, 0.3], [0.4, 0.0, 0.6]])
    estimator = classifier(transition_init=start, max_epochs=2).fit(X, names[y])
    assert_array_equal(estimator.classes_, ["ant", "mole", "zebra"])
    assert_allclose(estimator.initial_transition_matrix_, start, atol=1e-7)


def test_rows_of_a_known_matrix_are_true_classes():
    X, y = blobs(120, rate=0.0)
    names = np.array(["zebra", "ant", "mole"])
    # Every ant is observed as a mole, every mole as a zebra, every zebra as an ant.
    moved = {"ant": "mole", "mole": "zebra", "zebra": "ant"}
    observed = np.array([moved[name] for name in names[y]])
    known = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    estimator = classifier(transition_init=known, learn_transition=False).fit(X, observed)
    assert estimator.score(X, names[y]) > 0.95
    assert_allclose(estimator.noise_rate_, 1.0, atol=1e-6)


@pytest.mark.parametrize("init", ["auto", "cluster"])
def test_with_few_rows_labels_are_taken_at_their_word(init):
    few = classifier(transition_init=init, max_epochs=2).fit(*blobs(63))
    assert_allclose(few.initial_transition_matrix_, np.eye(3), atol=1e-7)
    enough = classifier(transition_init=init, max_epochs=2).fit(*blobs(64))
    assert np.abs(enough.initial_transition_matrix_ - np.eye(3)).max() > 0.01


def test_a_large_prior_keeps_the_matrix_at_its_start():
    X, y = blobs(rate=0.4)
    start = uniform_transition(3, 0.1)
    params = {"transition_init": start, "optimizer__betas": (0.5, 0.9), "lr": 0.01}
    for method in ("direct", "em"):
        estimators = [
            classifier(method=method, transition_prior=prior, tol=0.01, **params).fit(X, y)
            for prior in (1e4, 0.0)
        ]
        kept, free = (np.abs(e.transition_matrix_ - start).max() for e in estimators)
        assert kept < 1e-3
        assert free > 0.05


def test_volume_penalty_draws_the_matrix_to_a_smaller_volume():
    X, y = blobs(rate=0.2)
    params = {"transition_init": uniform_transition(3, 0.2), "transition_prior": 0.0, "lr": 0.01}
    volumes = [
        np.linalg.slogdet(
            classifier(volume_penalty=penalty, **params).fit(X, y).transition_matrix_
        ).logabsdet
        for penalty in (0.0, 0.1, 1.0)
    ]
    assert volumes[0] > volumes[1] + 0.01
    assert volumes[1] > volumes[2] + 0.01


# --- Early stopping -----------------------------------------------------------------------------


class HeldOut(Callback):
    """Keep the held-out rows of every epoch, wherever the callback was copied to."""

    seen = []

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        self.seen.append((dataset_train.rows.rows, dataset_valid.rows.rows))


@pytest.mark.parametrize("model", ["plain", "s", "c"])
def test_early_stopping_puts_the_weights_of_the_best_epoch_back(model):
    X, y = make_classification(400, n_informative=6, n_classes=3, random_state=0)
    HeldOut.seen.clear()
    params = {"lr": 0.02, "max_epochs": 60, "early_stopping": True, "validation_fraction": 0.25}
    params["n_iter_no_change"] = 10
    estimator = classifier(
        model, callbacks=[HeldOut()], transition_init=uniform_transition(3, 0.2), **params
    ).fit(X, y)
    train, valid = HeldOut.seen[-1]
    assert len(valid) == 100
    assert_array_equal(np.sort(np.r_[train, valid]), np.arange(400))
    assert_allclose(np.bincount(y[valid]) / 100, np.bincount(y) / 400, atol=0.01)

    last_stage = "baseline" if model == "plain" else model
    rows = [row for row in estimator.history_ if row["stage"] == last_stage]
    losses = [row["calibrated_valid_loss"] for row in rows]
    best = int(np.argmin(losses))
    likelihood = estimator.predict_noisy_proba(X[valid])[np.arange(100), y[valid]]
    assert_allclose(-np.log(likelihood).mean(), rows[best]["valid_loss"], rtol=1e-9)
    assert 10 < len(losses) < 60
    assert len(losses) <= best + 1 + 10
    assert losses[best] < losses[-1]


@pytest.mark.parametrize(("n_samples", "stops"), [(1999, False), (2000, True)])
def test_auto_holds_rows_out_only_when_there_are_enough(n_samples, stops):
    X, y = make_blobs(n_samples, random_state=0)
    estimator = classifier("plain", max_epochs=1).fit(X, y)
    assert ("valid_loss" in estimator.history_[-1]) == stops


def test_rows_to_hold_out_are_few_and_never_all():
    X, y = blobs()
    for fraction, n_valid in ((1e-9, 1), (0.5, 24), (0.999, 47)):
        HeldOut.seen.clear()
        params = {"early_stopping": True, "validation_fraction": fraction}
        classifier("plain", max_epochs=1, callbacks=[HeldOut], **params).fit(X, y)
        assert [len(rows) for rows in HeldOut.seen[-1]] == [48 - n_valid, n_valid]


# --- Weights ------------------------------------------------------------------------------------


def assert_same_fit(one, other, X, **tolerance):
    assert_allclose(one.predict_proba(X), other.predict_proba(X), **tolerance)
    assert_allclose(one.transition_matrix_, other.transition_matrix_, **tolerance)
    assert_allclose(one.class_prior_, other.class_prior_, **tolerance)
    assert_allclose(one.noise_rate_, other.noise_rate_, **tolerance)


@unconverged
@pytest.mark.parametrize(
    ("model", "init"),
    [(model, "auto") for model in ALL_MODELS]
    + [("s", "confusion"), ("em", "confusion"), ("c", "confusion")],
)
def test_weight_two_is_the_row_twice_on_a_single_batch(model, init):
    X, y = blobs(24)
    weight = np.random.default_rng(0).integers(1, 4, len(y))
    params = {"transition_init": init, "max_epochs": 60}
    weighted = classifier(model, **params).fit(X, y, weight)
    repeated = classifier(model, **params).fit(np.repeat(X, weight, 0), np.repeat(y, weight))
    ignored = classifier(model, **params).fit(X, y)
    assert weight.sum() < 64
    assert_same_fit(weighted, repeated, X, atol=1e-8)
    assert np.abs(weighted.predict_proba(X) - ignored.predict_proba(X)).max() > 1e-4


@unconverged
@all_models
@pytest.mark.parametrize("n_samples", [40, 130])
def test_weight_zero_is_no_row(model, n_samples):
    X, y = blobs(n_samples)
    weight = np.random.default_rng(0).choice([0.0, 1.0, 1.5], n_samples)
    params = {"max_epochs": 10, "max_em_iter": 5, "batch_size": 32}
    weighted = classifier(model, **params).fit(X, y, weight)
    seen = weight > 0
    without = classifier(model, **params).fit(X[seen], y[seen], weight[seen])
    assert_same_fit(weighted, without, X, atol=0)


def test_a_class_of_weight_zero_is_no_class():
    X, y = blobs()
    estimator = classifier(max_epochs=2).fit(X, y, sample_weight=(y != 1).astype(float))
    assert_array_equal(estimator.classes_, [0, 2])
    assert estimator.transition_matrix_.shape == (2, 2)


@unconverged
@all_models
def test_the_scale_of_the_weights_does_not_matter(model):
    X, y = blobs(130)
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(y))
    params = {"max_epochs": 10, "max_em_iter": 5}
    one = classifier(model, **params).fit(X, y, weight)
    other = classifier(model, **params).fit(X, y, 1000 * weight)
    assert_same_fit(one, other, X, atol=1e-8)


@unconverged
@all_models
def test_class_weight_moves_the_prediction_and_leaves_the_noise_alone(model):
    X, y = blobs(rate=0.3)
    params = {"max_epochs": 20, "max_em_iter": 20}
    plain = classifier(model, **params).fit(X, y)
    heavy = classifier(model, class_weight={0: 1.0, 1: 1.0, 2: 5.0}, **params).fit(X, y)
    expected = plain.predict_proba(X) * [1.0, 1.0, 5.0]
    expected /= expected.sum(axis=1, keepdims=True)
    assert_allclose(heavy.predict_proba(X), expected, atol=1e-9)
    assert (heavy.predict(X) == 2).sum() > (plain.predict(X) == 2).sum()
    assert_array_equal(heavy.transition_matrix_, plain.transition_matrix_)
    assert_array_equal(heavy.predict_noisy_proba(X), plain.predict_noisy_proba(X))


def test_balanced_weighs_by_the_inverse_frequency_of_the_observed_labels():
    X, y = blobs()
    X, y = np.r_[X, X[y == 0]], np.r_[y, y[y == 0]]
    balanced = {label: len(y) / (3 * np.sum(y == label)) for label in range(3)}
    one = classifier(class_weight="balanced", max_epochs=5).fit(X, y)
    other = classifier(class_weight=balanced, max_epochs=5).fit(X, y)
    assert_array_equal(one.predict_proba(X), other.predict_proba(X))


def test_balanced_counts_rows_by_their_weights():
    X, y = blobs()
    weight = np.where(y == 0, 5.0, 1.0) * np.random.default_rng(0).uniform(0.5, 1.5, len(y))
    balanced = {label: weight.sum() / (3 * weight[y == label].sum()) for label in range(3)}
    one = classifier(class_weight="balanced", max_epochs=5).fit(X, y, weight)
    other = classifier(class_weight=balanced, max_epochs=5).fit(X, y, weight)
    assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=1e-9)
    unweighted = classifier(class_weight="balanced", max_epochs=5).fit(X, y)
    assert np.abs(unweighted.predict_proba(X) - one.predict_proba(X)).max() > 0.05


def test_balanced_counts_the_weights_of_the_rows():
    X, y = blobs()
    weight = np.where(y == 2, 4.0, 1.0)
    mass = np.bincount(y, weight)
    by_hand = dict(enumerate(mass.sum() / (3 * mass)))
    params = {"noise_model": None, "max_epochs": 5}
    one = classifier(class_weight="balanced", **params).fit(X, y, weight)
    other = classifier(class_weight=by_hand, **params).fit(X, y, weight)
    assert_allclose(one.predict_proba(X), other.predict_proba(X), atol=1e-12)
    ignored = classifier(class_weight=dict(enumerate(len(y) / (3 * np.bincount(y)))), **params)
    difference = ignored.fit(X, y, weight).predict_proba(X) - one.predict_proba(X)
    assert np.abs(difference).max() > 0.05


# --- Randomness ---------------------------------------------------------------------------------


def global_states():
    numpy_state = np.random.get_state()[1]  # noqa: NPY002
    return [torch.get_rng_state().numpy().copy(), numpy_state.copy()]


@unconverged
@all_models
@pytest.mark.parametrize("early_stopping", [False, True])
def test_same_seed_same_bits_whatever_the_global_generators(model, early_stopping):
    X, y = blobs(150, dtype=np.float32)
    params = {"dropout": 0.3, "max_epochs": 3, "max_em_iter": 3, "batch_size": 32}
    params["early_stopping"] = early_stopping
    one = classifier(model, **params).fit(X, y)
    torch.rand(7)
    np.random.rand(7)  # noqa: NPY002
    before = global_states()
    other = classifier(model, **params).fit(X, y)
    other.predict(X)
    assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    assert_array_equal(one.transition_matrix_, other.transition_matrix_)
    assert one.history_[:, "train_loss"] == other.history_[:, "train_loss"]
    for was, now in zip(before, global_states(), strict=True):
        assert_array_equal(was, now)


def test_without_a_seed_each_fit_differs_and_global_generators_are_left_alone():
    X, y = blobs(150)
    before = global_states()
    params = {"random_state": None, "max_epochs": 2}
    probas = [classifier(**params).fit(X, y).predict_proba(X) for _ in range(2)]
    assert np.abs(probas[0] - probas[1]).max() > 1e-4
    for was, now in zip(before, global_states(), strict=True):
        assert_array_equal(was, now)


def test_a_random_state_instance_advances_from_fit_to_fit():
    X, y = blobs()
    stream = np.random.RandomState(3)
    one, two = (
        classifier(random_state=stream, max_epochs=2).fit(X, y).predict_proba(X) for _ in range(2)
    )
    seeded = classifier(random_state=np.random.RandomState(3), max_epochs=2).fit(X, y)
    assert_array_equal(one, seeded.predict_proba(X))
    assert np.abs(one - two).max() > 1e-4


# --- Going on -----------------------------------------------------------------------------------


@all_models
@unconverged
def test_warm_start_goes_on_where_the_last_fit_ended(model):
    X, y = blobs(60)
    params = {"max_epochs": 30, "max_em_iter": 30, "tol": 0.0, "transition_prior": 0.0}
    estimator = classifier(model, warm_start=True, **params).fit(X, y)
    first = list(estimator.history_)
    matrix = estimator.transition_matrix_
    estimator.fit(X, y)
    assert list(estimator.history_)[: len(first)] == first
    added = list(estimator.history_)[len(first) :]
    assert {row["stage"] for row in added} == {first[-1]["stage"]}
    assert added[0]["train_loss"] < 1.05 * first[-1]["train_loss"] < first[0]["train_loss"]
    assert_allclose(estimator.initial_transition_matrix_, matrix, atol=1e-7)


def test_without_warm_start_a_second_fit_starts_over():
    X, y = blobs()
    estimator = classifier(max_epochs=5).fit(X, y)
    proba = estimator.predict_proba(X)
    assert_array_equal(estimator.fit(X, y).predict_proba(X), proba)
    assert estimator.n_iter_ == 5


@unconverged
def test_warm_start_from_one_noise_model_to_the_next():
    X, y = blobs(100)
    estimator = classifier("plain", warm_start=True, max_epochs=3).fit(X, y)
    for noise_model, method, stage in [
        ("s", "direct", "s"),
        ("c", "direct", "c"),
        ("s", "em", "em"),
        (None, "direct", "baseline"),
    ]:
        estimator.set_params(noise_model=noise_model, method=method, max_em_iter=3)
        n_before, matrix = estimator.n_iter_, estimator.transition_matrix_
        goes_on = estimator.noise_model_ is not None
        estimator.fit(X, y)
        assert estimator.n_iter_ > n_before
        assert estimator.history_[-1, "stage"] == stage
        if goes_on and noise_model is not None:
            assert_allclose(estimator.initial_transition_matrix_, matrix, atol=1e-6)
    assert_array_equal(estimator.transition_matrix_, np.eye(3))


def test_warm_start_refuses_other_classes():
    X, y = blobs()
    estimator = classifier(warm_start=True, max_epochs=2).fit(X, y)
    with pytest.raises(ValueError, match=r"warm_start=True needs .* \[0, 1, 2\]; got \[1, 2, 3\]"):
        estimator.fit(X, y + 1)


def test_verbose_prints_a_row_for_each_epoch_with_its_stage(capsys):
    estimator = classifier("c", verbose=1, max_epochs=2, transition_init="confusion")
    estimator.fit(*blobs())
    printed = capsys.readouterr().out
    assert re.search(r"epoch +.*stage.*train_loss", printed)
    for stage in ("baseline", "s", "c"):
        assert len(re.findall(rf"\b{stage}\b", printed)) == 2
    estimator.set_params(verbose=0).fit(*blobs())
    assert capsys.readouterr().out == ""


# --- Predictions --------------------------------------------------------------------------------


@cache
def fitted_on_blobs(model, dtype, classes="abc"):
    X, y = blobs(90, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator = classifier(model, max_epochs=30, transition_init=pair_transition(3, 0.2))
        return estimator.fit(X, np.array(list(classes))[y]), X, np.array(list(classes))[y]


both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@all_models
@both_types
def test_all_probabilities_sum_to_one(model, dtype):
    estimator, X, y = fitted_on_blobs(model, dtype)
    for proba in (
        estimator.predict_proba(X),
        estimator.predict_noisy_proba(X),
        estimator.predict_transition(X),
        estimator.label_posterior(X, y),
        estimator.transition_matrix_,
        estimator.initial_transition_matrix_,
        estimator.class_prior_,
    ):
        assert proba.dtype == np.float64
        assert (proba >= 0).all()
        assert (proba <= 1).all()
        assert_allclose(proba.sum(axis=-1), 1.0, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "params",
    [{}, {"noise_model": None}, {"noise_model": "c", "n_noise_targets": 3}],
    ids=["s", "plain", "sparse c"],
)
@both_types
def test_probabilities_of_a_thousand_classes_sum_to_one_far_from_the_data(params, dtype):
    n_classes = 1000
    X = np.random.RandomState(0).randn(2 * n_classes, 3).astype(dtype)
    y = np.arange(2 * n_classes) % n_classes
    params = {"transition_init": "confusion", "max_epochs": 1, "hidden_layer_sizes": (4,), **params}
    estimator = NoisyLabelClassifier(random_state=0, **params).fit(X, y)
    far, y = X[:20] * 1e4, y[:20]
    for proba in (
        estimator.predict_proba(far),
        estimator.predict_noisy_proba(far),
        estimator.predict_transition(far),
        estimator.label_posterior(far, y),
        estimator.transition_matrix_,
    ):
        assert proba.min() >= 0
        assert proba.max() <= 1
        assert_allclose(proba.sum(axis=-1), 1.0, rtol=0, atol=1e-9)


@all_models
@both_types
def test_predictions_agree_with_each_other(model, dtype):
    estimator, X, y = fitted_on_blobs(model, dtype)
    clean, transition = estimator.predict_proba(X), estimator.predict_transition(X)
    rows = np.arange(len(X))
    position = np.searchsorted(estimator.classes_, y)
    assert transition.shape == (90, 3, 3)
    assert_allclose(np.log(clean), estimator.predict_log_proba(X), atol=1e-9)
    assert_array_equal(estimator.predict(X), estimator.classes_[clean.argmax(axis=1)])
    assert_allclose(estimator.score(X, y), np.mean(estimator.predict(X) == y))
    noisy = np.stack([clean[t] @ transition[t] for t in rows])
    assert_allclose(estimator.predict_noisy_proba(X), noisy, atol=1e-9)
    joint = np.stack([clean[t] * transition[t][:, position[t]] for t in rows])
    posterior = joint / joint.sum(axis=1, keepdims=True)
    assert_allclose(estimator.label_posterior(X, y), posterior, atol=1e-9)


@pytest.mark.parametrize("model", ["plain", "s", "em"])
@both_types
def test_noise_of_the_class_is_one_matrix_for_all_rows(model, dtype):
    estimator, X, _ = fitted_on_blobs(model, dtype)
    for matrix in estimator.predict_transition(X):
        assert_allclose(matrix, estimator.transition_matrix_, atol=1e-6)
    clean = estimator.predict_proba(X)
    noisy = estimator.predict_noisy_proba(X)
    assert_allclose(noisy, clean @ estimator.transition_matrix_, atol=1e-6)


@both_types
def test_matrix_of_the_c_model_is_the_average_weighted_by_clean_probabilities(dtype):
    estimator, X, _ = fitted_on_blobs("c", dtype)
    clean, transition = estimator.predict_proba(X), estimator.predict_transition(X)
    expected = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            total = sum(clean[t, i] * transition[t, i, j] for t in range(len(X)))
            expected[i, j] = total / sum(clean[t, i] for t in range(len(X)))
    assert np.ptp(transition, axis=0).max() > 0.01
    assert_allclose(estimator.transition_matrix_, expected, atol=1e-6)


def test_averages_of_the_c_model_take_the_weights_of_the_rows():
    X, y = blobs(90)
    weight = np.random.default_rng(0).uniform(0.0, 5.0, len(y))
    estimator = classifier("c", max_epochs=10).fit(X, y, weight)
    clean, transition = estimator.predict_proba(X), estimator.predict_transition(X)
    prior = np.average(clean, axis=0, weights=weight)
    joint = np.average(clean[:, :, None] * transition, axis=0, weights=weight)
    assert_allclose(estimator.class_prior_, prior, atol=1e-9)
    assert_allclose(estimator.transition_matrix_, joint / prior[:, None], atol=1e-7)


@all_models
@both_types
def test_prior_and_noise_rate_are_averages_over_the_training_rows(model, dtype):
    estimator, X, _ = fitted_on_blobs(model, dtype)
    clean, transition = estimator.predict_proba(X), estimator.predict_transition(X)
    assert_allclose(estimator.class_prior_, clean.mean(axis=0), atol=1e-6)
    kept = np.einsum("ti,tii->t", clean, transition)
    assert_allclose(estimator.noise_rate_, 1 - kept.mean(), atol=1e-6)


@all_models
def test_predictions_do_not_depend_on_the_company_of_a_row(model):
    estimator, X, y = fitted_on_blobs(model, np.float64)
    for t in (0, 17):
        one = slice(t, t + 1)
        assert_allclose(estimator.predict_proba(X[one])[0], estimator.predict_proba(X)[t])
        assert estimator.predict_transition(X[one]).shape == (1, 3, 3)
        posterior = estimator.label_posterior(X[one], y[one])
        assert_allclose(posterior[0], estimator.label_posterior(X, y)[t])


@all_models
def test_names_of_the_classes_do_not_matter_while_their_order_stays(model):
    strings, X, _ = fitted_on_blobs(model, np.float64, "abc")
    others, _, _ = fitted_on_blobs(model, np.float64, "pxz")
    assert_array_equal(strings.predict_proba(X), others.predict_proba(X))
    assert_array_equal(strings.transition_matrix_, others.transition_matrix_)


@unconverged
@pytest.mark.parametrize("model", ["s", "c", "em"])
def test_permuting_the_classes_commutes_with_fit(model):
    X, y = blobs(90)
    to = np.array([2, 0, 1])
    start = random_transition(3, 0.2, random_state=0)
    moved_start = np.empty_like(start)
    moved_start[np.ix_(to, to)] = start
    one = classifier("plain", warm_start=True, max_epochs=1, lr=1e-12).fit(X, y)
    other = copy.deepcopy(one)
    with torch.no_grad():
        for mine, theirs in zip(
            other.net_.network.head.parameters(), one.net_.network.head.parameters(), strict=True
        ):
            mine[to] = theirs
    params = {**ALL_MODELS[model], "lr": 1e-2, "max_epochs": 20, "max_em_iter": 20}
    # As long as asked for: parts of the rows depend on the order of the classes, and end nothing.
    params = {"noise_model": "s", "early_stopping": False, **params}
    one.set_params(transition_init=start, **params).fit(X, y)
    other.set_params(transition_init=moved_start, **params).fit(X, to[y])
    assert_allclose(other.predict_proba(X)[:, to], one.predict_proba(X), atol=1e-8)
    assert_allclose(other.transition_matrix_[np.ix_(to, to)], one.transition_matrix_, atol=1e-8)
    assert np.abs(one.transition_matrix_ - start).max() > 0.01


# --- What it is for -----------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["s", "c", "em"])
def test_noise_on_digits_is_found_and_clean_labels_predicted(model):
    _, X_test, _, y_test = digits()
    estimator = fitted_on_digits(model)
    plain = fitted_on_digits("plain")
    assert transition_matrix_error(PAIR, estimator.transition_matrix_) < 0.06
    assert estimator.score(X_test, y_test) > max(0.95, plain.score(X_test, y_test) + 0.1)
    assert abs(estimator.noise_rate_ - 0.3) < 0.06


def test_the_learned_matrix_serves_as_well_as_the_known_one():
    X, X_test, y, y_test = digits()
    observed = corrupt_labels(y, PAIR, random_state=0)
    known = NoisyLabelClassifier(transition_init=PAIR, learn_transition=False, random_state=0)
    known_score = known.fit(X, observed).score(X_test, y_test)
    assert known_score > 0.95
    assert fitted_on_digits("s").score(X_test, y_test) > known_score - 0.015


@pytest.mark.parametrize("model", ["s", "c", "em"])
def test_clean_labels_lose_nothing(model):
    _, X_test, _, y_test = digits()
    estimator = fitted_on_digits(model, noisy=False)
    plain = fitted_on_digits("plain", noisy=False)
    assert estimator.score(X_test, y_test) > plain.score(X_test, y_test) - 0.01
    assert estimator.noise_rate_ < 0.05


def test_posterior_of_the_true_label_finds_the_wrong_labels():
    X, _, y, _ = digits()
    observed = corrupt_labels(y, PAIR, random_state=0)
    posterior = fitted_on_digits("s").label_posterior(X, observed)
    assert np.mean(posterior.argmax(axis=1) == y) > np.mean(observed == y) + 0.2
    trust = posterior[np.arange(len(y)), observed]
    assert trust[observed == y].mean() > trust[observed != y].mean() + 0.5


def test_a_known_matrix_needs_no_baseline_when_rows_are_held_out():
    X, y = blobs()
    known = uniform_transition(3, 0.2)
    params = {"transition_init": known, "learn_transition": False, "early_stopping": True}
    estimator = classifier(max_epochs=3, **params).fit(X, y)
    assert set(estimator.history_[:, "stage"]) == {"s"}
