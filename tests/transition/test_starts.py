"""The starts find the noise in predictions whose noise is known, and survive poor ones."""

import warnings
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax

from sknoisy._transition import mixture, starts
from sknoisy._transition.mixture import NoisyMixture, fit_noisy_mixture
from sknoisy._transition.starts import (
    calibrated_start,
    cluster_start,
    confident_start,
    confusion_start,
    hard_start,
    mixture_start,
    recounted_start,
    uniform_start,
    with_own_label_likeliest,
)
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import (
    corrupt_labels,
    pair_transition,
    permutation_transition,
    random_transition,
    uniform_transition,
)

PAPER = [7, 9, 0, 4, 2, 1, 3, 5, 6, 8]


def matrix_of(start):
    """Let a start that says how likely the labels are return the matrix alone."""

    def matrix(*args, **kwargs):
        return start(*args, **{"random_state": 0} | kwargs).transition

    return matrix


STARTS = {
    "confusion": confusion_start,
    "hard": hard_start,
    "confident": confident_start,
    "cluster": partial(cluster_start, random_state=0),
    "mixture": matrix_of(mixture_start),
    "calibrated": matrix_of(calibrated_start),
}
all_starts = pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
COUNTS = ("hard", "confident", "cluster", "mixture")
from_predictions = pytest.mark.parametrize("start", [STARTS[n] for n in COUNTS], ids=COUNTS)
from_clusters = pytest.mark.parametrize(
    "start", [STARTS["cluster"], STARTS["mixture"]], ids=["cluster", "mixture"]
)


def ideal(transition, n_samples=1500, jitter=0.2, seed=0, share=None):
    """Draw what a perfect network says, ``log T[y_t]`` with jitter, and the labels it saw."""
    n_classes = len(transition)
    rng = np.random.default_rng(seed)
    if share is None:
        y = np.arange(n_samples) % n_classes
    else:
        y = np.repeat(np.arange(n_classes), np.round(np.array(share) * n_samples).astype(int))
    observed = corrupt_labels(
        y, transition, exact=True, classes=np.arange(n_classes), random_state=seed
    )
    log_proba = np.log(np.maximum(transition, 1e-3))[y]
    log_proba = log_softmax(log_proba + jitter * rng.standard_normal(log_proba.shape), axis=1)
    return log_proba, observed, y


def assert_is_transition(matrix, n_classes):
    assert matrix.shape == (n_classes, n_classes)
    assert np.isfinite(matrix).all()
    assert (matrix >= 0).all()
    assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-9)


# --- What they find -----------------------------------------------------------------------------

MATRICES = {
    "none": np.eye(10),
    "uniform": uniform_transition(10, 0.5),
    "pair": pair_transition(10, 0.45),
    "permutation": permutation_transition(PAPER, 0.48),
    "random": random_transition(10, 0.4, random_state=0),
    "two classes": np.array([[0.7, 0.3], [0.2, 0.8]]),
    "thirty classes": pair_transition(30, 0.4),
}
all_matrices = pytest.mark.parametrize("transition", MATRICES.values(), ids=MATRICES)


@from_predictions
@all_matrices
def test_the_noise_is_found_in_ideal_predictions(start, transition):
    jitter = 0.02 if start in (hard_start, confident_start) else 0.2
    log_proba, observed, _ = ideal(transition, jitter=jitter)
    assert transition_matrix_error(transition, start(log_proba, observed)) < 0.03


@from_clusters
@pytest.mark.parametrize("rate", [0.46, 0.48, 0.49])
def test_heavy_noise_is_found_where_the_predicted_class_is_a_coin_toss(start, rate):
    transition = permutation_transition(PAPER, rate)
    log_proba, observed, _ = ideal(transition, 3000, jitter=0.3)
    assert transition_matrix_error(transition, start(log_proba, observed)) < 0.02
    assert transition_matrix_error(transition, hard_start(log_proba, observed)) > 0.1


@all_matrices
def test_confusion_finds_the_noise_when_the_clean_posterior_is_certain(transition):
    _, observed, y = ideal(transition)
    with np.errstate(divide="ignore"):
        log_proba = np.log(np.eye(len(transition))[y])
    assert transition_matrix_error(transition, confusion_start(log_proba, observed)) < 0.02


@from_clusters
@pytest.mark.parametrize("seed", range(3))
def test_clusters_are_named_by_the_heaviest_diagonal(start, seed):
    # Which cluster comes first is chance; the diagonal says which class it is.
    transition = permutation_transition(np.roll(np.arange(6), 2), 0.45)
    log_proba, observed, _ = ideal(transition, 600, seed=seed)
    found = start(log_proba, observed, random_state=seed)
    assert transition_matrix_error(transition, found) < 0.02


@from_predictions
def test_relabelling_the_classes_relabels_the_matrix(start):
    transition = random_transition(5, 0.3, random_state=1)
    log_proba, observed, _ = ideal(transition, 600)
    to = np.array([3, 0, 4, 1, 2])
    moved = np.empty_like(log_proba)
    moved[:, to] = log_proba
    found = start(log_proba, observed)
    assert_allclose(start(moved, to[observed])[np.ix_(to, to)], found, atol=5e-3)


@all_starts
def test_the_order_of_the_rows_does_not_matter(start):
    log_proba, observed, _ = ideal(pair_transition(4, 0.3), 400)
    order = np.random.default_rng(0).permutation(400)
    found = start(log_proba, observed)
    assert_allclose(start(log_proba[order], observed[order]), found, atol=5e-3)


def test_confusion_is_the_formula_of_the_paper():
    rng = np.random.default_rng(0)
    log_proba = log_softmax(rng.standard_normal((20, 3)), axis=1)
    target, weight = rng.integers(0, 3, 20), rng.uniform(0.5, 2.0, 20)
    for w in (None, weight):
        expected = np.zeros((3, 3))
        for t in range(20):
            for i in range(3):
                expected[i, target[t]] += np.exp(log_proba[t, i]) * (1.0 if w is None else w[t])
        expected /= expected.sum(axis=1, keepdims=True)
        assert_allclose(confusion_start(log_proba, target, w), expected, atol=1e-7)


def test_hard_counts_the_predicted_against_the_observed_class():
    log_proba = np.log([[0.6, 0.4], [0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])
    found = hard_start(log_proba, np.array([0, 0, 1, 1]))
    assert_allclose(found, [[2 / 3, 1 / 3], [0, 1]], atol=1e-7)


def test_confident_leaves_out_rows_below_the_mean_of_their_class():
    proba = np.array([[0.9, 0.1], [0.5, 0.5], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])
    target = np.array([0, 0, 1, 1, 1])
    # Thresholds are (.9 + .5) / 2 = .7 and (.2 + .7 + .9) / 3 = .6: the second row is in doubt.
    expected = [[1 / 2, 1 / 2], [0, 1]]
    assert_allclose(confident_start(np.log(proba), target), expected, atol=1e-7)


@pytest.mark.parametrize(
    ("n_classes", "n_fits", "best"),
    [(3, 8, 0), (3, 8, 3), (3, 8, 7), *[(6, 16, best) for best in range(16)]],
)
def test_mixture_is_the_likeliest_of_its_fits(monkeypatch, n_classes, n_fits, best):
    """Two views, from predicted classes and one or three clusterings, free and balanced."""
    fits = [
        NoisyMixture(
            uniform_transition(n_classes, 0.05 * i), float(i == best), *[np.zeros(n_classes)] * 3
        )
        for i in range(n_fits)
    ]
    remaining = iter(fits)
    monkeypatch.setattr(mixture, "fit_noisy_mixture", lambda *a, **k: next(remaining))
    monkeypatch.setattr(starts, "most_likely_kind", lambda fit, *a, **k: fit)
    log_proba, observed, _ = ideal(pair_transition(n_classes, 0.3), 120)
    found = mixture_start(log_proba, observed, random_state=0)
    assert found.transition is fits[best].transition
    assert found.log_likelihood == fits[best].log_likelihood
    assert list(remaining) == []


@pytest.mark.parametrize(
    ("n_rows", "n_classes", "restricted"),
    [
        (200, 2, False),
        (1999, 3, True),
        (2000, 3, False),
        (8999, 10, True),
        (9000, 10, False),
        (600, 49, True),
        (600, 50, False),
    ],
)
def test_restricted_mixtures_are_for_some_rows_and_classes(
    monkeypatch, n_rows, n_classes, restricted
):
    """Below 2000 rows or 100 for each entry of the matrix, and three to 49 classes."""
    kinds = []

    def spy(scores, target, classes, n_classes, **kwargs):
        kinds.append(kwargs["kind"])
        return fit_noisy_mixture(scores, target, classes, n_classes, max_iter=1, **kwargs)

    monkeypatch.setattr(mixture, "fit_noisy_mixture", spy)
    random = np.random.default_rng(0)
    log_proba = log_softmax(random.standard_normal((n_rows, n_classes)), axis=1)
    mixture_start(log_proba, random.integers(0, n_classes, n_rows), random_state=0)
    all_kinds = {"free", "balanced", "sparse", "symmetric", "smooth"}
    assert set(kinds) == (all_kinds if restricted else {"free"})


def test_mixture_of_many_rows_is_fitted_to_some_and_counted_on_all(monkeypatch):
    transition = pair_transition(3, 0.3)
    log_proba, observed, _ = ideal(transition, 3000)
    expected = mixture_start(log_proba, observed, random_state=0).transition
    sizes = []

    def spy(scores, *args, **kwargs):
        sizes.append(len(scores))
        return fit_noisy_mixture(scores, *args, **kwargs)

    monkeypatch.setattr(mixture, "_MIXTURE_ROWS", (100, 200))
    monkeypatch.setattr(mixture, "fit_noisy_mixture", spy)
    weight = np.ones(3000)
    for weights in (None, weight):
        found = mixture_start(log_proba, observed, weights, random_state=0)
        assert_allclose(found.transition, expected, atol=0.01)
    assert set(sizes) == {200}


# --- Weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["confusion", "hard", "confident"])
def test_counts_take_weight_two_for_the_row_twice(name):
    log_proba, observed, _ = ideal(random_transition(4, 0.3, random_state=0), 100, jitter=1.0)
    weight = np.random.default_rng(0).integers(1, 4, len(observed))
    weighted = STARTS[name](log_proba, observed, weight.astype(float))
    repeated = STARTS[name](np.repeat(log_proba, weight, axis=0), np.repeat(observed, weight))
    assert_allclose(weighted, repeated, atol=1e-12)
    assert np.abs(weighted - STARTS[name](log_proba, observed)).max() > 1e-3


@all_starts
def test_the_scale_of_the_weights_does_not_matter_where_it_is_that_of_rows(start):
    log_proba, observed, _ = ideal(pair_transition(4, 0.3), 400)
    ones = start(log_proba, observed, np.ones(400))
    assert_allclose(ones, start(log_proba, observed), atol=1e-9)


@all_starts
def test_rows_of_little_weight_have_little_say(start):
    transition = pair_transition(4, 0.2)
    log_proba, observed, y = ideal(transition, 400)
    by_predictions = start in (STARTS["confusion"], STARTS["calibrated"])
    with np.errstate(divide="ignore"):
        certain = np.log(np.eye(4)[y]) if by_predictions else log_proba
    wrong = np.random.default_rng(0).permutation(observed)
    both = np.r_[certain, certain], np.r_[observed, wrong], np.repeat([1.0, 1e-6], 400)
    assert transition_matrix_error(transition, start(*both)) < 0.05


def test_rows_of_little_weight_do_not_attract_clusters():
    proba = np.repeat([[0.55, 0.45], [0.45, 0.55], [0.01, 0.99]], 50, axis=0)
    observed, weight = np.repeat([0, 1, 1], 50), np.repeat([1.0, 1.0, 1e-9], 50)
    found = cluster_start(np.log(proba), observed, weight, random_state=0)
    assert_allclose(found, np.eye(2), atol=1e-6)


# --- Poor data ----------------------------------------------------------------------------------


@all_starts
def test_a_class_that_is_never_predicted_has_a_row(start):
    log_proba, observed, _ = ideal(pair_transition(4, 0.3), 400)
    log_proba[:, 2] = -20.0
    assert_is_transition(start(log_proba, observed), 4)


@all_starts
def test_a_class_that_is_never_observed_has_a_row_and_a_column(start):
    log_proba, observed, _ = ideal(pair_transition(4, 0.3), 400)
    observed[observed == 1] = 0
    assert_is_transition(start(log_proba, observed), 4)


def test_a_class_without_any_prediction_keeps_its_label():
    log_proba = np.log([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    for start in (hard_start, confident_start):
        assert_allclose(start(log_proba, np.array([0, 1])), np.eye(3), atol=1e-7)


def test_an_empty_cluster_takes_the_name_that_is_left():
    proba = np.repeat([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]], 40, axis=0)
    observed = np.repeat([1, 2], 40)
    for seed in range(5):
        found = cluster_start(np.log(proba), observed, random_state=seed)
        assert_allclose(found, np.eye(4), atol=1e-7)


@from_predictions
def test_rare_classes_are_found(start):
    transition = pair_transition(4, 0.2)
    log_proba, observed, _ = ideal(transition, 2000, share=[0.5, 0.3, 0.18, 0.02])
    assert transition_matrix_error(transition, start(log_proba, observed)) < 0.05


@all_starts
@pytest.mark.parametrize(
    "log_proba",
    [
        np.full((60, 3), np.log(1 / 3)),
        np.tile(np.log([0.98, 0.01, 0.01]), (60, 1)),
        np.tile(np.log([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]]), (30, 1)),
        np.tile([0.0, -80.0, -700.0], (60, 1)),
        np.where(np.eye(3, dtype=bool)[np.arange(60) % 3], 0.0, -np.inf),
    ],
    ids=["uniform", "constant", "two values", "extreme", "certain"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predictions_without_variety_give_a_matrix_and_no_warning(start, log_proba, dtype):
    observed = np.random.default_rng(0).integers(0, 3, 60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = start(log_proba.astype(dtype), observed)
        weighted = start(log_proba.astype(dtype), observed, np.linspace(0.5, 1.5, 60))
    assert_is_transition(found, 3)
    assert_is_transition(weighted, 3)


@all_starts
@pytest.mark.parametrize("n_samples", [3, 7])
def test_a_handful_of_rows_gives_a_matrix(start, n_samples):
    log_proba, observed, _ = ideal(pair_transition(3, 0.3), n_samples)
    assert_is_transition(start(log_proba, observed), 3)


@all_starts
@given(
    seed=st.integers(0, 2**31),
    k=st.integers(2, 6),
    n=st.integers(6, 60),
    scale=st.sampled_from([0.0, 0.1, 3.0, 200.0]),
    weighted=st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_any_predictions_give_a_stochastic_matrix(start, seed, k, n, scale, weighted):
    rng = np.random.default_rng(seed)
    log_proba = log_softmax(scale * rng.standard_normal((n, k)), axis=1)
    weight = rng.uniform(1e-3, 5.0, n) if weighted else None
    assert_is_transition(start(log_proba, rng.integers(0, k, n), weight), k)


# --- Randomness, copies and size ----------------------------------------------------------------


@pytest.mark.parametrize("start", [STARTS[n] for n in ("cluster", "mixture", "calibrated")])
def test_same_seed_same_matrix_and_global_state_untouched(start):
    log_proba, observed, _ = ideal(pair_transition(5, 0.4), 500, jitter=1.0)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one = start(log_proba, observed, random_state=3)
    assert_array_equal(start(log_proba, observed, random_state=3), one)
    assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@all_starts
def test_arguments_are_left_as_they_are(start):
    log_proba, observed, _ = ideal(pair_transition(4, 0.3), 200)
    given = log_proba, observed, np.linspace(0.5, 1.5, 200)
    copies = [a.copy() for a in given]
    start(*given)
    for mine, theirs in zip(given, copies, strict=True):
        assert_array_equal(mine, theirs)


@from_clusters
def test_clusters_of_some_rows_serve_all_of_them(start, monkeypatch):
    transition = pair_transition(5, 0.4)
    log_proba, observed, _ = ideal(transition, 3000)
    monkeypatch.setattr(mixture, "_MIXTURE_ROWS", (500, 500))
    assert len(mixture.capped_rows(3000, 5, 0)) == 500
    found = start(log_proba, observed, np.ones(3000))
    assert transition_matrix_error(transition, found) < 0.01


def test_rows_to_cluster_are_capped_by_the_number_of_classes():
    for n_classes, most in ((2, 20_000), (10, 20_000), (60, 11_111), (1000, 5_000)):
        rows = mixture.capped_rows(100_000, n_classes, 0)
        assert len(np.unique(rows)) == len(rows) == most
        for n_samples in (most, most - 1, 10):
            assert mixture.capped_rows(n_samples, n_classes, 0) == slice(None)


# --- The matrix beside calibrated predictions ---------------------------------------------------


def hard_problem(transition, n_samples=3000, sharpness=1.0, seed=0, offset=0.0):
    """Draw calibrated predictions of classes that overlap, labels, and what a network says."""
    n_classes = len(transition)
    rng = np.random.default_rng(seed)
    log_proba = 2.0 * rng.standard_normal((n_samples, n_classes)) + offset
    log_proba = log_softmax(log_proba, axis=1)
    y = (np.exp(log_proba).cumsum(axis=1) < rng.uniform(size=(n_samples, 1))).sum(axis=1)
    y = np.minimum(y, n_classes - 1)
    observed = corrupt_labels(y, transition, classes=np.arange(n_classes), random_state=seed)
    return log_softmax(sharpness * log_proba, axis=1), observed


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("rate", [0.1, 0.3])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_uniform_noise_is_found_beside_hard_predictions(n_classes, rate, sharpness):
    transition = uniform_transition(n_classes, rate)
    log_proba, observed = hard_problem(transition, 6000, sharpness)
    found = calibrated_start(log_proba, observed, random_state=0)
    assert transition_matrix_error(transition, found.transition) < 0.06


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("n_samples", [500, 3000])
def test_what_is_merely_hard_stays_near_the_identity(n_samples, sharpness, seed):
    log_proba, observed = hard_problem(np.eye(5), n_samples, sharpness, seed)
    found = calibrated_start(log_proba, observed, random_state=0)
    assert (1 - np.diag(found.transition)).mean() < 0.1
    # Counts take what is hard for noise.
    assert (1 - np.diag(hard_start(log_proba, observed))).mean() > 0.2


def test_the_row_of_a_rare_class_is_shrunk_towards_the_pooled_rate():
    n_classes, rare = 4, 3
    transition = uniform_transition(n_classes, 0.2)
    transition[rare] = [0.6, 0.0, 0.0, 0.4]  # quite another noise
    distance = {}
    for offset in (-6.5, 0.0):
        log_proba, observed = hard_problem(transition, 4000, offset=np.eye(4)[rare] * offset)
        found = calibrated_start(log_proba, observed, random_state=0).transition
        pooled = np.diag(found)[:rare].mean()
        distance[offset] = found[rare, rare] - transition[rare, rare], pooled - found[rare, rare]
    assert abs(distance[0.0][0]) < 0.08  # enough rows tell
    assert distance[-6.5][0] > 0.1  # few rows do not
    assert abs(distance[-6.5][1]) < 0.2


@pytest.mark.parametrize("weighted", [False, True])
def test_the_likelihood_is_that_of_the_labels_beside_the_matrix(weighted):
    log_proba, observed = hard_problem(uniform_transition(3, 0.2), 2000)
    weight = np.random.default_rng(1).uniform(0.5, 2.0, 2000) if weighted else None
    found = calibrated_start(log_proba, observed, weight, random_state=0)
    likelihood = (np.exp(log_proba) @ found.transition)[np.arange(2000), observed]
    expected = np.average(np.log(likelihood), weights=weight)
    assert found.log_likelihood == pytest.approx(expected, abs=0.01)


def test_weight_two_is_the_row_twice_beside_calibrated_predictions():
    log_proba, observed = hard_problem(pair_transition(4, 0.3), 1500, 2.0)
    weight = np.random.default_rng(0).integers(0, 4, 1500)
    weighted = calibrated_start(log_proba, observed, weight.astype(float), random_state=0)
    repeated = calibrated_start(
        np.repeat(log_proba, weight, axis=0), np.repeat(observed, weight), random_state=0
    )
    assert_allclose(weighted.transition, repeated.transition, atol=5e-3)
    assert weighted.log_likelihood == pytest.approx(repeated.log_likelihood, abs=1e-3)
    ignored = calibrated_start(log_proba, observed, random_state=0)
    assert abs(ignored.log_likelihood - repeated.log_likelihood) > 2e-3


def test_the_own_label_becomes_the_likeliest_and_no_more_is_changed():
    transition = np.array([[0.2, 0.8, 0.0], [0.1, 0.5, 0.4], [0.3, 0.4, 0.3]])
    found = with_own_label_likeliest(transition)
    assert_is_transition(found, 3)
    assert (np.diag(found) >= found.max(axis=1) - 1e-12).all()
    assert_array_equal(found[1], transition[1])
    assert_allclose(found[0], [0.5, 0.5, 0.0])
    # The other labels keep their proportions.
    assert_allclose(found[2, 0] / found[2, 1], 0.75)


@given(seed=st.integers(0, 2**31), k=st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_no_wrong_label_is_likelier_than_the_right_one_afterwards(seed, k):
    transition = np.random.default_rng(seed).dirichlet(np.full(k, 0.3), size=k)
    found = with_own_label_likeliest(transition)
    assert_is_transition(found, k)
    assert (found.max(axis=1) <= np.diag(found) + 1e-9).all()
    assert_allclose(with_own_label_likeliest(found), found, atol=1e-9)


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_more_than_two_hundred_classes_keep_one_rate_of_errors(rate):
    log_proba, observed = hard_problem(uniform_transition(220, rate), 3000)
    found = starts.calibrated_start(log_proba, observed).transition
    assert_allclose(found, uniform_transition(220, 1.0 - found[0, 0]), atol=1e-9)
    assert found[0, 0] == pytest.approx(1.0 - rate, abs=0.15)


# --- Counted again ------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "transition",
    [pair_transition(20, 0.3), uniform_transition(20, 0.4), pair_transition(20, 0.5)],
    ids=["pair", "uniform", "half"],
)
def test_a_second_count_finds_rate_and_sparsity_beside_hard_predictions(transition, weighted):
    log_proba, target = hard_problem(transition, n_samples=6000)
    unseen = np.arange(0, 6000, 3)
    weight = np.full(6000, 2.0) if weighted else None
    counted = confident_start(log_proba, target)
    found = recounted_start(log_proba, target, weight, unseen=unseen)
    assert_is_transition(found, 20)
    error = transition_matrix_error(found, transition)
    assert error < 0.12
    assert error < transition_matrix_error(counted, transition)


def test_labels_that_judge_a_second_count_are_not_counted_unless_there_are_no_others():
    # The classes turn into their next one in the rows that are counted, and not where they judge.
    log_proba, target = hard_problem(pair_transition(20, 0.3), n_samples=6000)
    unseen = np.arange(0, 6000, 3)
    other = target.copy()
    other[unseen] = hard_problem(uniform_transition(20, 0.3), n_samples=6000)[1][unseen]
    found = recounted_start(log_proba, other, unseen=unseen)
    ratio = found[np.arange(20), (np.arange(20) + 1) % 20] / found[np.arange(20), np.arange(20) - 1]
    assert np.median(ratio) > 3.0
    counted = np.setdiff1d(np.arange(6000), unseen)
    shares = confident_start(log_proba[counted], target[counted])
    np.fill_diagonal(shares, 0.0)
    np.fill_diagonal(found, 0.0)
    order = np.argsort(shares, axis=1)
    assert_allclose(np.argsort(found, axis=1)[:, -3:], order[:, -3:])
    everyone = recounted_start(log_proba, target, unseen=np.arange(6000))
    assert_is_transition(everyone, 20)
    assert transition_matrix_error(everyone, pair_transition(20, 0.3)) < 0.12


def test_a_second_count_of_a_class_without_any_wrong_label_is_spread_evenly():
    log_proba = np.log(0.98 * np.eye(4)[[0, 1, 2, 3] * 10] + 0.005)
    found = recounted_start(log_proba, np.array([0, 1, 2, 3] * 10), unseen=np.arange(40))
    assert_is_transition(found, 4)
    assert found.diagonal().min() > 0.9


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.6])
def test_even_errors_have_the_rate_of_the_labels(rate):
    log_proba, observed, _ = ideal(uniform_transition(5, rate))
    found = uniform_start(log_proba, observed)
    assert_allclose(found, uniform_transition(5, 1 - found[0, 0]), atol=1e-12)
    assert 1 - found[0, 0] == pytest.approx(rate, abs=0.05)
    weight = np.ones(len(observed))
    assert_allclose(uniform_start(log_proba, observed, weight), found)
