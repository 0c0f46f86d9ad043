"""The noisy mixture: what its EM finds, and how well it fits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from scipy.stats import dirichlet_multinomial

from sknoisy._transition import mixture
from sknoisy._transition.mixture import (
    MixtureFit,
    fit_mixture,
    fit_noisy_mixture,
    heaviest_diagonal,
    most_likely_classes,
    most_likely_kind,
    recount,
)
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import (
    block_transition,
    corrupt_labels,
    pair_transition,
    permutation_transition,
    random_transition,
    uniform_transition,
)

MATRICES = {
    "none": np.eye(5),
    "uniform": uniform_transition(5, 0.5),
    "pair": pair_transition(5, 0.45),
    "permutation": permutation_transition([1, 0, 3, 4, 2], 0.48),
    "random": random_transition(5, 0.4, random_state=0),
    "two classes": np.array([[0.7, 0.3], [0.2, 0.8]]),
    "thirty classes": pair_transition(30, 0.4),
}


def sample(transition, n_samples=900, distance=6.0, seed=0, share=None):
    """Draw scores around one centre for each true class, and labels through the noise."""
    n_classes = len(transition)
    rng = np.random.default_rng(seed)
    y = rng.choice(n_classes, n_samples, p=share)
    scores = distance * np.eye(n_classes)[y] + rng.standard_normal((n_samples, n_classes))
    classes = np.arange(n_classes)
    return scores, corrupt_labels(y, transition, classes=classes, random_state=seed), y


def nearest(scores):
    return scores.argmax(axis=1)


@pytest.mark.parametrize("transition", MATRICES.values(), ids=MATRICES)
def test_the_noise_is_found(transition):
    scores, observed, y = sample(transition, 3000)
    fit = fit_noisy_mixture(scores, observed, nearest(scores), len(transition))
    counts = np.array([np.bincount(observed[y == i], minlength=len(transition)) for i in set(y)])
    drawn = counts / counts.sum(axis=1, keepdims=True)
    assert transition_matrix_error(drawn, fit.transition) < 0.01


@pytest.mark.parametrize("seed", range(5))
def test_labels_part_classes_that_the_scores_blur(seed):
    # At this distance a sixth of the rows lie nearer to another centre.
    transition = pair_transition(4, 0.2)
    scores, observed, _ = sample(transition, 4000, distance=2.0, seed=seed)
    start = nearest(scores)
    fit = fit_noisy_mixture(scores, observed, start, 4)
    counted = np.array([np.bincount(observed[start == i], minlength=4) for i in range(4)])
    counted = counted / counted.sum(axis=1, keepdims=True)
    error = transition_matrix_error(transition, fit.transition)
    assert error < 0.05
    assert error < transition_matrix_error(transition, counted) / 2


def test_classes_are_named_by_the_heaviest_diagonal_whatever_the_start_calls_them():
    transition = permutation_transition([1, 2, 3, 0], 0.45)
    scores, observed, _ = sample(transition)
    first = fit_noisy_mixture(scores, observed, nearest(scores), 4).transition
    for to in ([1, 2, 3, 0], [3, 2, 1, 0]):
        found = fit_noisy_mixture(scores, observed, np.array(to)[nearest(scores)], 4).transition
        assert_allclose(found, first, atol=1e-6)


def test_relabelling_the_observed_classes_relabels_the_matrix():
    scores, observed, _ = sample(random_transition(4, 0.3, random_state=0))
    to = np.array([2, 0, 3, 1])
    found = fit_noisy_mixture(scores, observed, nearest(scores), 4).transition
    moved = fit_noisy_mixture(scores, to[observed], nearest(scores), 4).transition
    assert_allclose(moved[np.ix_(to, to)], found, atol=1e-9)


def test_linear_maps_of_the_scores_change_nothing_without_shrinkage():
    scores, observed, _ = sample(pair_transition(3, 0.3))
    mapping = np.random.default_rng(0).standard_normal((3, 3))
    fits = [
        fit_noisy_mixture(s, observed, nearest(scores), 3, shrinkage=0.0)
        for s in (scores, scores @ mapping + 5.0)
    ]
    assert_allclose(fits[0].transition, fits[1].transition, atol=1e-5)
    assert_allclose(fits[0].log_likelihood, fits[1].log_likelihood, atol=1e-5)


def test_likelihood_is_that_of_the_labels_given_the_scores():
    # With centres far apart the true class is certain, and what is left is T[y_t, z_t].
    scores, observed, y = sample(pair_transition(3, 0.3), distance=30.0)
    fit = fit_noisy_mixture(scores, observed, nearest(scores), 3)
    assert_allclose(fit.log_likelihood, np.log(fit.transition[y, observed]).mean(), atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_likelihood_prefers_the_better_start(seed):
    transition = pair_transition(4, 0.3)
    scores, observed, y = sample(transition, distance=4.0, seed=seed)
    merged = np.where(y == 1, 0, y)
    chance = np.random.default_rng(seed).integers(0, 2, len(y))
    good = fit_noisy_mixture(scores, observed, nearest(scores), 4)
    for classes in (merged, chance):
        poor = fit_noisy_mixture(scores, observed, classes, 4, max_iter=1)
        errors = [transition_matrix_error(transition, f.transition) for f in (good, poor)]
        assert errors[0] < errors[1]
        assert good.log_likelihood > poor.log_likelihood + 0.01


def test_weight_two_is_the_row_twice_and_weight_zero_is_no_row():
    scores, observed, _ = sample(pair_transition(3, 0.3), 300, distance=3.0)
    weight = np.random.default_rng(0).integers(0, 4, 300)
    classes = nearest(scores)
    weighted = fit_noisy_mixture(scores, observed, classes, 3, weight=weight.astype(float))
    repeated = fit_noisy_mixture(
        *(np.repeat(a, weight, axis=0) for a in (scores, observed)), np.repeat(classes, weight), 3
    )
    assert_allclose(weighted.transition, repeated.transition, atol=1e-9)
    assert_allclose(weighted.log_likelihood, repeated.log_likelihood, atol=1e-9)
    unweighted = fit_noisy_mixture(scores, observed, classes, 3)
    assert np.abs(weighted.transition - unweighted.transition).max() > 1e-3


def test_rows_left_out_of_em_can_be_counted_after_it():
    transition = pair_transition(3, 0.3)
    scores, observed, _ = sample(transition, 3000, distance=10.0)
    some = fit_noisy_mixture(scores[:300], observed[:300], nearest(scores[:300]), 3)
    every = fit_noisy_mixture(scores, observed, nearest(scores), 3)
    assert_allclose(recount(some, scores, observed), every.transition, atol=1e-6)
    weight = np.repeat([1.0, 0.0], [300, 2700])
    counted = recount(some, scores, observed, weight=weight)
    assert_allclose(counted, some.transition, atol=1e-6)


def test_a_class_without_rows_has_a_flat_row():
    scores, observed, _ = sample(np.eye(3), 200)
    few = observed != 2
    fit = fit_noisy_mixture(scores[few], observed[few], nearest(scores[few]), 3)
    assert_allclose(fit.transition[:2], np.eye(3)[:2], atol=2e-3)
    assert_allclose(fit.transition[2], 1 / 3, atol=0.05)


def test_rare_classes_are_found():
    transition = pair_transition(4, 0.2)
    scores, observed, _ = sample(transition, 3000, share=[0.6, 0.28, 0.1, 0.02])
    fit = fit_noisy_mixture(scores, observed, nearest(scores), 4)
    assert transition_matrix_error(transition, fit.transition) < 0.06


@pytest.mark.parametrize("scores", [np.zeros((60, 3)), np.tile([[0.0, 1.0, 2.0]], (60, 1))])
def test_scores_without_variety_give_the_shares_of_the_labels(scores):
    observed = np.arange(60) % 3
    fit = fit_noisy_mixture(scores, observed, np.zeros(60, dtype=int), 3)
    assert_allclose(fit.transition, 1 / 3, atol=1e-2)
    assert_allclose(fit.log_likelihood, np.log(1 / 3), atol=1e-2)


@given(
    seed=st.integers(0, 2**31),
    k=st.integers(2, 6),
    n=st.integers(2, 40),
    n_scores=st.integers(1, 4),
    scale=st.sampled_from([1e-12, 1.0, 1e6]),
    weighted=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_any_data_give_a_stochastic_matrix_and_a_likelihood(seed, k, n, n_scores, scale, weighted):
    rng = np.random.default_rng(seed)
    scores = scale * rng.standard_normal((n, n_scores))
    weight = rng.uniform(1e-3, 5.0, n) if weighted else None
    fit = fit_noisy_mixture(scores, rng.integers(0, k, n), rng.integers(0, k, n), k, weight=weight)
    assert np.isfinite(fit.transition).all()
    assert (fit.transition > 0).all()
    assert_allclose(fit.transition.sum(axis=1), 1.0, atol=1e-12)
    assert fit.log_likelihood <= 0


@given(seed=st.integers(0, 2**31), k=st.integers(2, 5))
@settings(max_examples=25, deadline=None)
def test_no_other_order_has_a_heavier_diagonal(seed, k):
    rng = np.random.default_rng(seed)
    transition = softmax(2 * rng.standard_normal((k, k)), axis=1)
    order = heaviest_diagonal(transition)
    assert_array_equal(np.sort(order), np.arange(k))
    heaviest = np.trace(transition[order])
    assert all(heaviest >= np.trace(transition[rng.permutation(k)]) - 1e-12 for _ in range(30))


def test_the_cluster_at_each_place_is_the_one_named_after_it():
    transition = np.array([[0.1, 0.9, 0.0], [0.2, 0.1, 0.7], [0.8, 0.1, 0.1]])
    assert_array_equal(heaviest_diagonal(transition), [2, 0, 1])


@pytest.mark.parametrize("pseudo_count", [0.0, 0.1, 40.0])
def test_so_many_rows_of_labels_are_added_to_every_class(pseudo_count):
    scores, observed, y = sample(uniform_transition(5, 0.4), distance=30.0)
    counts = np.array([np.bincount(observed[y == i], minlength=5) for i in range(5)])
    expected = (counts + pseudo_count / 5) / (counts.sum(axis=1, keepdims=True) + pseudo_count)
    fit = fit_noisy_mixture(scores, observed, y, 5, pseudo_count=pseudo_count)
    assert_allclose(fit.transition, expected, atol=1e-6)
    assert_allclose(recount(fit, scores, observed, pseudo_count=pseudo_count), expected, atol=1e-6)


def test_counts_are_made_of_a_part_of_the_rows_at_a_time(monkeypatch):
    scores, observed, y = sample(uniform_transition(5, 0.4))
    whole = fit_noisy_mixture(scores, observed, y, 5)
    sizes, discriminant = [], mixture._discriminant

    def noted(scores, *moments):
        sizes.append(scores.shape[1])
        return discriminant(scores, *moments)

    monkeypatch.setattr(mixture, "_ELEMENTS_AT_ONCE", 5 * 64)
    monkeypatch.setattr(mixture, "_discriminant", noted)
    counted = recount(whole, scores, observed)
    assert max(sizes) == 64
    assert sum(sizes) == len(scores)
    assert_allclose(counted, whole.transition, atol=1e-3)


# --- Where rows are few -------------------------------------------------------------------------


def test_balanced_classes_are_as_frequent_as_their_labels():
    scores, observed, _ = sample(pair_transition(4, 0.3), 200)
    weight = np.random.default_rng(1).integers(1, 4, 200)
    found = fit_noisy_mixture(
        scores, observed, nearest(scores), 4, weight=weight.astype(float), kind="balanced"
    )
    labels = np.repeat(observed, weight)
    assert_allclose(found.prior, (np.bincount(labels) + 1) / (len(labels) + 4))


def test_balanced_rates_are_shrunk_to_that_of_all_by_twenty_labels():
    # So far apart that every row is known.
    transition = np.diag([1.0, 0.9, 0.5])
    transition[[1, 2], [2, 0]] = [0.1, 0.5]
    y = np.repeat([0, 1, 2], 40)
    observed = corrupt_labels(y, transition, exact=True, random_state=0)
    scores = 100.0 * np.eye(3)[y] + np.random.default_rng(0).standard_normal((120, 3))
    found = fit_noisy_mixture(scores, observed, y, 3, kind="balanced").transition
    n_wrong = np.array([0, 4, 20])
    expected = (n_wrong + 20 * n_wrong.sum() / 120) / (40 + 20)
    assert_allclose(1.0 - np.diag(found), expected, atol=1e-6)


def test_sparse_rows_have_two_labels_less_of_each_wrong_one():
    y = np.zeros(100, dtype=int)
    observed = np.repeat([0, 1, 2, 3], [60, 32, 6, 2])
    y, observed = (
        np.r_[y, [1] * 50, [2] * 50, [3] * 50],
        np.r_[observed, [1] * 50, [2] * 50, [3] * 50],
    )
    scores = 100.0 * np.eye(4)[y] + np.random.default_rng(0).standard_normal((250, 4))
    found = fit_noisy_mixture(scores, observed, y, 4, kind="sparse").transition
    wrong = found[0, 1:] / found[0, 1:].sum()
    assert_allclose(wrong, 0.98 * np.array([30, 4, 0]) / 34 + 0.02 / 3, atol=1e-6)


def test_symmetric_rows_have_two_labels_less_of_both_ways_between_two_classes():
    counts = np.array([[60, 30, 6, 4], [20, 70, 6, 4], [1, 9, 90, 0], [0, 0, 0, 100]])
    y = np.repeat(np.arange(4), 100)
    observed = np.repeat(np.tile(np.arange(4), 4), counts.ravel())
    scores = 100.0 * np.eye(4)[y] + np.random.default_rng(0).standard_normal((400, 4))
    found = fit_noisy_mixture(scores, observed, y, 4, kind="symmetric").transition
    both = np.array([[0, 48, 5, 2], [48, 0, 13, 2], [5, 13, 0, 0], [2, 2, 0, 0]])
    shares = 0.98 * both / both.sum(axis=1, keepdims=True) + 0.02 * (1 - np.eye(4)) / 3
    rates = (np.array([40, 30, 10, 0]) + 20 * 0.2) / (100 + 20)
    assert_allclose(found, np.diag(1 - rates) + rates[:, None] * shares, atol=1e-6)


@pytest.mark.parametrize("spread", ["one", "few", "some", "all"])
def test_smooth_rows_have_the_strength_of_the_most_likely_dirichlet_distribution(spread):
    others = {
        "one": [30, 0, 0, 0],
        "few": [20, 10, 0, 0],
        "some": [18, 9, 2, 1],
        "all": [8, 7, 8, 7],
    }[spread]
    y = np.repeat(np.arange(5), 80)
    of_others = [np.roll(others, shift) for shift in range(5)]
    wrong = np.zeros((5, 5), dtype=int)
    wrong[~np.eye(5, dtype=bool)] = np.ravel(of_others)
    counts = wrong + 50 * np.eye(5, dtype=int)
    observed = np.repeat(np.tile(np.arange(5), 5), counts.ravel())
    scores = 100.0 * np.eye(5)[y] + np.random.default_rng(0).standard_normal((400, 5))
    found = fit_noisy_mixture(scores, observed, y, 5, kind="smooth").transition

    def log_likelihood(strength):
        return sum(dirichlet_multinomial.logpmf(row, np.full(4, strength), 30) for row in of_others)

    strengths = [0.1 / 5, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0]
    strength = max(strengths, key=log_likelihood)
    assert strength == {"one": 0.01, "few": 0.1, "some": 1.0, "all": 1000.0}[spread]
    expected = (wrong + strength) * (1 - np.eye(5))
    expected *= 0.375 / expected.sum(axis=1, keepdims=True)
    assert_allclose(found, expected + 0.625 * np.eye(5), atol=1e-6)


@pytest.mark.parametrize("kind", ["free", "balanced", "sparse", "symmetric", "smooth"])
def test_every_kind_finds_that_there_is_no_noise(kind):
    scores, observed, _ = sample(np.eye(4), 120, distance=50.0)
    found = fit_noisy_mixture(scores, observed, nearest(scores), 4, kind=kind)
    assert_allclose(found.transition, np.eye(4), atol=0.01)
    assert np.isfinite(found.log_likelihood)


def predictions(transition, n_samples, seed):
    """Draw what a network of noisy labels predicts, and the labels."""
    scores, observed, y = sample(transition, n_samples, distance=4.0, seed=seed)
    clean = softmax(2.0 * scores, axis=1)
    return np.log(clean @ transition + 1e-6), observed, y


@pytest.mark.parametrize(
    ("kind", "transition", "n_rows"),
    [
        ("sparse", pair_transition(6, 0.3), 240),
        ("sparse", permutation_transition([1, 2, 0, 4, 5, 3], 0.4), 240),
        ("symmetric", block_transition([0, 0, 0, 1, 1, 1], 0.4), 240),
        ("smooth", uniform_transition(6, 0.5), 300),
    ],
    ids=["pair", "permutation", "groups", "uniform"],
)
def test_the_mixture_of_the_kind_of_the_noise_is_taken_and_is_nearer(kind, transition, n_rows):
    kinds, errors = [], []
    for seed in range(6):
        log_proba, observed, _ = predictions(transition, n_rows, seed)
        free = fit_mixture(log_proba, observed, random_state=0)
        found = most_likely_kind(free, log_proba, observed, random_state=0)
        kinds.append(found.kind)
        errors.append(
            [transition_matrix_error(fit.mixture.transition, transition) for fit in (found, free)]
        )
    assert kinds.count(kind) >= 4
    of_kind, dense = np.mean(errors, axis=0)
    assert of_kind < 0.85 * dense


@pytest.mark.parametrize(
    ("likeliest", "sparse", "smooth", "expected"),
    [
        ("free", -3.0, True, "free"),
        ("free", -0.5, True, "sparse"),
        ("symmetric", -3.0, True, "symmetric"),
        ("symmetric", -0.5, True, "sparse"),
        ("smooth", -3.0, True, "smooth"),
        ("smooth", -3.0, False, "free"),
        ("sparse", 0.0, False, "sparse"),
    ],
)
def test_the_likeliest_kind_is_taken_or_the_simplest_within_a_standard_error(
    likeliest, sparse, smooth, expected, monkeypatch
):
    log_proba, observed, _ = predictions(pair_transition(6, 0.3), 240, 0)
    free = fit_mixture(log_proba, observed, random_state=0)
    varied = np.tile([-1.0, 1.0], 120)  # a standard deviation of one

    def left_out(fit, *args):
        if fit.kind == "sparse":
            return 1.0 + varied + sparse / np.sqrt(240)
        return np.full(240, float(fit.kind == likeliest or likeliest == "sparse"))

    monkeypatch.setattr(MixtureFit, "left_out", left_out)
    found = most_likely_kind(free, log_proba, observed, smooth=smooth, random_state=0)
    assert found.kind == expected


def test_no_label_counts_for_more_than_one_nat(monkeypatch):
    log_proba, observed, _ = predictions(pair_transition(6, 0.3), 240, 0)
    free = fit_mixture(log_proba, observed, random_state=0)
    some = np.arange(240) < 24
    gains = {"free": 0.0, "smooth": np.where(some, -20.0, 0.2), "sparse": -1.0, "symmetric": -1.0}
    monkeypatch.setattr(MixtureFit, "left_out", lambda fit, *args: gains[fit.kind] + np.zeros(240))
    assert most_likely_kind(free, log_proba, observed).kind == "smooth"
    weight = np.where(some, 3.0, 1.0)  # each counts for three rows: now they decide
    assert most_likely_kind(free, log_proba, observed, weight).kind == "free"


def test_fewer_than_ten_rows_a_class_have_no_other_mixture():
    log_proba, observed, _ = predictions(pair_transition(5, 0.3), 49, 0)
    free = fit_mixture(log_proba, observed)
    assert most_likely_kind(free, log_proba, observed) is free


def test_labels_of_no_weight_teach_nothing_where_labels_are_left_out():
    log_proba, observed, _ = predictions(pair_transition(5, 0.3), 200, 0)
    free = fit_mixture(log_proba, observed)
    left_out = free.left_out(log_proba, observed, None, 0)
    assert_allclose(free.left_out(log_proba, observed, np.full(200, 1.0), 0), left_out)
    # A weight of zero teaches nothing: what is left out then is what was.
    some = np.r_[np.ones(150), np.zeros(50)]
    changed = np.r_[observed[:150], (observed[150:] + 2) % 5]
    of_some = [free.left_out(log_proba, labels, some, 0)[:150] for labels in (observed, changed)]
    assert_allclose(*of_some)


def test_most_likely_classes_take_the_label_into_account():
    scores, observed, y = sample(pair_transition(4, 0.2), 2000, distance=2.0)
    fit = fit_noisy_mixture(scores, observed, nearest(scores), 4)
    found = most_likely_classes(fit, scores, observed)
    assert (found == y).mean() > (nearest(scores) == y).mean() + 0.02


@pytest.mark.parametrize("seed", range(3))
def test_balanced_classes_keep_their_rows(seed):
    """With few rows of overlapping classes free EM gives most of the rows of one to another."""
    transition, free, balanced = pair_transition(5, 0.45), [], []
    for draw in range(4):
        scores, observed, _ = sample(transition, 200, distance=2.5, seed=10 * seed + draw)
        for errors, kind in ((free, "free"), (balanced, "balanced")):
            found = fit_noisy_mixture(scores, observed, nearest(scores), 5, kind=kind)
            errors.append(transition_matrix_error(found.transition, transition))
    assert np.mean(balanced) < np.mean(free)
