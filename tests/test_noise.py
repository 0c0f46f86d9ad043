"""Laws of the synthetic label noise."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from sknoisy.noise import (
    block_transition,
    boundary_transition,
    corrupt_labels,
    pair_transition,
    permutation_transition,
    random_transition,
    region_transition,
    transition_from_trace,
    uniform_transition,
)

n_classes_strategy = st.integers(2, 12)
rates = st.floats(0, 1)
seeds = st.integers(0, 2**32 - 1)

same_rate_in_every_class = {
    "uniform": lambda k, rate, seed: uniform_transition(k, rate),
    "pair": lambda k, rate, seed: pair_transition(k, rate),
    "permutation": lambda k, rate, seed: permutation_transition(np.roll(range(k), 1), rate),
    "block": lambda k, rate, seed: block_transition(np.arange(k) % (k // 2), rate),
    "random": lambda k, rate, seed: random_transition(k, rate, random_state=seed),
}


def assert_is_transition(transition):
    assert transition.dtype == np.float64
    assert np.all(transition >= 0)
    assert_allclose(transition.sum(axis=-1), 1)


@pytest.mark.parametrize("kind", same_rate_in_every_class)
@given(n_classes=n_classes_strategy, rate=rates, seed=seeds)
@settings(max_examples=30, deadline=None)
def test_rate_is_the_probability_of_a_wrong_label_in_every_class(kind, n_classes, rate, seed):
    transition = same_rate_in_every_class[kind](n_classes, rate, seed)
    assert_is_transition(transition)
    assert_allclose(1 - transition.diagonal(), rate, atol=1e-12)


@given(n_classes=n_classes_strategy, share=st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_resampling_uniformly_is_the_converted_rate(n_classes, share):
    resampled = (1 - share) * np.eye(n_classes) + share / n_classes
    rate = share * (n_classes - 1) / n_classes
    assert_allclose(uniform_transition(n_classes, rate), resampled, atol=1e-12)


@given(n_classes=n_classes_strategy, mean_kept=st.floats(0, 1), seed=seeds)
@settings(max_examples=50, deadline=None)
def test_matrix_from_trace_has_that_trace(n_classes, mean_kept, seed):
    trace = mean_kept * n_classes
    transition = transition_from_trace(n_classes, trace, random_state=seed)
    assert_is_transition(transition)
    assert_allclose(transition.trace(), trace, atol=1e-9)


def test_rates_from_trace_differ_between_classes():
    assert np.ptp(transition_from_trace(10, 5.0, random_state=0).diagonal()) > 0.1


def test_permutation_moves_class_to_its_image_and_leaves_fixed_points_clean():
    assert_array_equal(permutation_transition([0, 2, 1], 1.0), np.eye(3)[[0, 2, 1]])


def test_pair_is_a_cycle_through_all_classes():
    assert_array_equal(np.linalg.matrix_power(pair_transition(5, 1.0).astype(int), 5), np.eye(5))
    assert_array_equal(pair_transition(5, 1.0).argmax(axis=1), [1, 2, 3, 4, 0])


def test_block_noise_stays_in_the_group():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    transition = block_transition(groups, 0.4)
    assert np.all(transition[groups[:, None] != groups] == 0)
    assert transition[3, 3] == 1
    assert_allclose(transition[0, [2, 5]], 0.2)


def test_blocks_of_one_group_are_uniform_noise():
    assert_allclose(block_transition(["all"] * 4, 0.3), uniform_transition(4, 0.3))


@pytest.mark.parametrize(
    "draw",
    [
        lambda seed: random_transition(5, 0.3, random_state=seed),
        lambda seed: transition_from_trace(5, 3.0, random_state=seed),
        lambda seed: corrupt_labels(
            np.arange(100) % 5, uniform_transition(5, 0.5), random_state=seed
        ),
        lambda seed: corrupt_labels(
            np.arange(100) % 5, uniform_transition(5, 0.5), exact=True, random_state=seed
        ),
    ],
)
def test_seed_decides_and_global_state_is_untouched(draw):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert_array_equal(draw(3), draw(3))
    assert not np.array_equal(draw(3), draw(4))
    assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@given(
    labels=st.lists(st.sampled_from(["ant", "bee", "cat"]), min_size=1),
    exact=st.booleans(),
    seed=seeds,
)
@settings(max_examples=30, deadline=None)
def test_identity_changes_no_label(labels, exact, seed):
    observed = corrupt_labels(
        labels, np.eye(3), classes=["ant", "bee", "cat"], exact=exact, random_state=seed
    )
    assert_array_equal(observed, labels)


@given(
    sizes=st.lists(st.integers(0, 40), min_size=2, max_size=6),
    kept=st.floats(0, 1),
    seed=seeds,
)
@settings(max_examples=50, deadline=None)
def test_exact_counts_are_the_rounded_expected_counts(sizes, kept, seed):
    n_classes = len(sizes)
    transition = transition_from_trace(n_classes, kept * n_classes, random_state=seed)
    true = np.random.default_rng(seed).permutation(np.repeat(np.arange(n_classes), sizes))
    observed = corrupt_labels(
        true, transition, classes=range(n_classes), exact=True, random_state=seed
    )
    counts = np.zeros((n_classes, n_classes))
    np.add.at(counts, (true, observed), 1)
    expected = np.array(sizes)[:, None] * transition
    assert_array_equal(counts.sum(axis=1), sizes)
    assert np.all(np.abs(counts - expected) < 1)
    rounded_up = counts > expected
    for row in range(n_classes):
        remainder = expected[row] - np.floor(expected[row])
        if rounded_up[row].any() and not rounded_up[row].all():
            assert remainder[rounded_up[row]].min() >= remainder[~rounded_up[row]].max() - 1e-8


def test_exact_flips_the_share_of_every_class_that_the_rate_says():
    y = np.repeat(np.arange(10), 100)
    observed = corrupt_labels(y, pair_transition(10, 0.46), exact=True, random_state=0)
    for label in range(10):
        assert Counter(observed[y == label].tolist()) == {label: 54, (label + 1) % 10: 46}


def test_exact_ties_favour_no_class():
    transition, y = uniform_transition(11, 0.5), np.zeros(10, dtype=int)
    hits = np.zeros(11)
    for seed in range(400):
        observed = corrupt_labels(y, transition, classes=range(11), exact=True, random_state=seed)
        hits += np.bincount(observed, minlength=11)
    assert_allclose(hits[1:] / 400, 0.5, atol=0.12)


@pytest.mark.parametrize("exact", [True, False])
def test_every_row_of_a_class_is_equally_likely_to_flip(exact):
    y = np.zeros(8, dtype=int)
    draws = [
        corrupt_labels(y, uniform_transition(2, 0.5), classes=[0, 1], exact=exact, random_state=s)
        for s in range(600)
    ]
    assert_allclose(np.mean(draws, axis=0), 0.5, atol=0.1)


def test_drawn_labels_follow_the_row_of_their_true_class():
    transition = random_transition(4, 0.6, random_state=0)
    y = np.repeat(np.arange(4), 20_000)
    observed = corrupt_labels(y, transition, random_state=1)
    for label in range(4):
        frequencies = np.bincount(observed[y == label], minlength=4) / 20_000
        assert_allclose(frequencies, transition[label], atol=0.02)


def test_impossible_labels_are_never_drawn():
    transition = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    y = np.arange(3000) % 3
    assert_array_equal(corrupt_labels(y, transition, random_state=0), (y + 1) % 3)


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_one_matrix_is_the_same_as_that_matrix_for_every_sample(seed):
    transition = random_transition(3, 0.5, random_state=seed)
    y = np.arange(60) % 3
    per_sample = np.broadcast_to(transition, (60, 3, 3))
    assert_array_equal(
        corrupt_labels(y, transition, random_state=seed),
        corrupt_labels(y, per_sample, random_state=seed),
    )


def test_classes_set_the_order_of_rows_and_columns():
    transition = np.array([[0.0, 1.0], [0.0, 1.0]])
    assert_array_equal(corrupt_labels(["a", "b"], transition), ["b", "b"])
    assert_array_equal(corrupt_labels(["a", "b"], transition, classes=["b", "a"]), ["a", "a"])


@pytest.mark.parametrize(
    "y",
    [
        np.array([3, 7, 3, 100], dtype=np.int16),
        np.array([True, False, True]),
        np.array(["ant", "cat"]),
        np.array(["ant", "cat"], dtype=object),
        np.array([1.0, 2.0]),
    ],
    ids=lambda y: str(y.dtype),
)
@pytest.mark.parametrize("pass_classes", [True, False])
@pytest.mark.parametrize("exact", [True, False])
def test_any_label_keeps_its_dtype(y, pass_classes, exact):
    before = y.copy()
    k = len(np.unique(y))
    classes = np.unique(y).tolist() if pass_classes else None
    observed = corrupt_labels(
        y, pair_transition(k, 1.0), classes=classes, exact=exact, random_state=0
    )
    assert observed.dtype == y.dtype
    assert set(observed.tolist()) <= set(y.tolist())
    assert np.all(observed != y)
    assert_array_equal(y, before)


@pytest.mark.parametrize(
    "y",
    [
        pd.Series(["x", "y", "x"], index=[5, 6, 7]),
        pd.Series(["x", "y", "x"], dtype="category"),
        pd.Categorical(["x", "y", "x"], categories=["z", "y", "x"]),
        pd.Index(["x", "y", "x"]),
        ("x", "y", "x"),
    ],
    ids=lambda y: type(y).__name__,
)
def test_pandas_labels_come_back_as_an_array(y):
    observed = corrupt_labels(y, pair_transition(2, 1.0))
    assert isinstance(observed, np.ndarray)
    assert_array_equal(observed, ["y", "x", "y"])


def test_labels_longer_than_those_of_y_are_not_cut_off():
    observed = corrupt_labels(["a", "a"], pair_transition(2, 1.0), classes=["a", "elephant"])
    assert_array_equal(observed, ["elephant", "elephant"])


def test_no_label_in_no_label_out():
    assert corrupt_labels(np.array([], int), np.eye(2), classes=[0, 1], exact=True).shape == (0,)


@given(seed=seeds, rate=st.floats(0, 0.9), sharpness=st.floats(0, 4))
@settings(max_examples=50, deadline=None)
def test_boundary_noise_has_that_mean_rate_for_any_true_labels(seed, rate, sharpness):
    random = np.random.default_rng(seed)
    proba = random.dirichlet(np.ones(4), size=20)
    transition = boundary_transition(proba, rate, sharpness=sharpness)
    assert_is_transition(transition)
    true = random.integers(4, size=20)
    assert_allclose(1 - transition[np.arange(20), true, true].mean(), rate, atol=1e-9)


def test_boundary_noise_grows_with_doubt_and_follows_plausibility():
    transition = boundary_transition([[0.9, 0.08, 0.02], [0.5, 0.4, 0.1], [1, 0, 0]], 0.2)
    flips = 1 - transition[:, 0, 0]
    assert flips[1] > flips[0] > flips[2] == 0
    assert_allclose(transition[1, 0, 1] / transition[1, 0, 2], 4)


def test_boundary_noise_without_sharpness_is_equal_everywhere():
    transition = boundary_transition([[1, 0, 0], [0.4, 0.3, 0.3]], 0.25, sharpness=0)
    assert_allclose(transition[:, [0, 1, 2], [0, 1, 2]], 0.75)
    assert_allclose(transition[0, 0], [0.75, 0.125, 0.125])


def test_boundary_noise_can_saturate_every_doubtful_sample():
    proba = np.repeat([[0.6, 0.4], [1, 0]], [3, 27], axis=0)
    transition = boundary_transition(proba, 0.1)
    assert_allclose(transition[:, 0, 1], np.repeat([1.0, 0.0], [3, 27]))


def test_region_noise_is_one_matrix_inside_and_another_outside():
    inside, outside = uniform_transition(3, 0.4), pair_transition(3, 0.1)
    mask = np.array([True, False, True])
    transition = region_transition(mask, inside, outside=outside)
    assert_array_equal(transition[mask], [inside, inside])
    assert_array_equal(transition[~mask], [outside])
    assert_array_equal(region_transition(mask, inside)[1], np.eye(3))


def test_feature_dependent_labels_flip_only_in_the_region():
    X = np.linspace(-1, 1, 1000)
    y = (X > 0.5).astype(int)
    transition = region_transition(X > 0, uniform_transition(2, 0.5))
    observed = corrupt_labels(y, transition, random_state=0)
    assert_array_equal(observed[X <= 0], y[X <= 0])
    assert_allclose(np.mean(observed[X > 0] != y[X > 0]), 0.5, atol=0.1)


@pytest.mark.parametrize("build", [uniform_transition, pair_transition, random_transition])
def test_bad_arguments_of_the_builders_are_named(build):
    with pytest.raises(ValueError, match="n_classes == 1, must be >= 2"):
        build(1, 0.1)
    with pytest.raises(TypeError, match="n_classes must be an instance of"):
        build(2.5, 0.1)
    for rate in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"rate must be in \[0, 1\], got"):
            build(3, rate)
    with pytest.raises(TypeError, match="rate must be an instance of"):
        build(3, "0.1")


@pytest.mark.parametrize("permutation", [[0, 2], [1, 1, 0], [0.5, 1], [[0, 1]], ["a", "b"]])
def test_what_is_no_permutation_is_refused(permutation):
    with pytest.raises(ValueError, match="permutation must hold each of the class indices"):
        permutation_transition(permutation, 0.1)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="the length of permutation == 1, must be >= 2"):
        permutation_transition([0], 0.1)
    with pytest.raises(ValueError, match="the length of groups == 1, must be >= 2"):
        block_transition([0], 0.1)


@pytest.mark.parametrize("trace", [-0.1, 3.1, np.nan])
def test_impossible_trace_is_refused(trace):
    with pytest.raises(ValueError, match=r"trace must be in \[0, n_classes=3\], got"):
        transition_from_trace(3, trace)


@pytest.mark.parametrize(
    ("transition", "message"),
    [
        ([[0.5, 0.5]], r"have shape \(true, observed\).* got shape \(1, 2\)"),
        (np.eye(0), r"have shape .* got shape \(0, 0\)"),
        ([0.5, 0.5], r"have shape .* got shape \(2,\)"),
        ([[1.5, -0.5], [0, 1]], "be finite and non-negative; got values from -0.5 to 1.5"),
        ([[np.nan, 1], [0, 1]], "be finite and non-negative"),
        (
            [[0.9, 0.2], [0, 1]],
            r"have rows \(true classes\) that sum to one; got sums from 1 to 1.1",
        ),
        (
            np.eye(3),
            "have a row and a column for each of the 2 labels in y, got shape .* Pass classes",
        ),
        (np.ones((4, 2, 2)) / 2, r"have .* or \(3, true, observed\).* got shape \(4, 2, 2\)"),
    ],
)
def test_what_is_no_transition_matrix_is_refused(transition, message):
    with pytest.raises(ValueError, match=f"^`?transition_matrix`? must {message}"):
        corrupt_labels([0, 1, 1], transition)


def test_transition_matrix_in_single_precision_is_accepted():
    transition = random_transition(50, 0.5, random_state=0).astype(np.float32)
    assert len(corrupt_labels(np.arange(50), transition, exact=True)) == 50


@pytest.mark.parametrize(
    ("y", "arguments", "message"),
    [
        (["a", "c"], {"classes": ["a", "b"]}, r"y must hold only labels in classes.*\['c'\]"),
        ([0, 1], {"classes": ["a", "b"]}, r"y must hold only labels in classes.*\[0, 1\]"),
        ([0, 1], {"classes": [0, 0]}, r"classes must hold distinct labels, got \[0, 0\]"),
        ([0.0, np.nan], {}, r"no missing ones, got values of \['float'\]"),
        (["a", None], {}, r"no missing ones, got values of \['NoneType', 'str'\]"),
        ([[0, 1], [1, 0]], {}, "should be a 1d array"),
    ],
)
def test_bad_labels_are_refused(y, arguments, message):
    with pytest.raises(ValueError, match=message):
        corrupt_labels(y, np.eye(2), **arguments)


def test_exact_counts_need_one_matrix():
    with pytest.raises(ValueError, match="exact=True needs one transition_matrix for all samples"):
        corrupt_labels([0, 1], np.broadcast_to(np.eye(2), (2, 2, 2)), exact=True)


def test_bad_arguments_of_the_feature_dependent_noise_are_named():
    with pytest.raises(ValueError, match=r"in_region must be a boolean array .* got dtype int"):
        region_transition([0, 1], np.eye(2))
    with pytest.raises(ValueError, match=r"outside must have the shape of transition_matrix"):
        region_transition([True], np.eye(2), outside=np.eye(3))
    with pytest.raises(ValueError, match="`outside` must be finite and non-negative"):
        region_transition([True], np.eye(2), outside=-np.eye(2))
    for proba in ([0.5, 0.5], [[1.0]], [[0.5, 0.6]], [[1.5, -0.5]], [[np.nan, 1]]):
        with pytest.raises(ValueError, match="clean_proba must be non-negative with rows"):
            boundary_transition(proba, 0.1)
    with pytest.raises(ValueError, match=r"rate must be at most 0.5, the share .* got 0.6"):
        boundary_transition([[0.5, 0.5], [1, 0]], 0.6)
    with pytest.raises(ValueError, match="sharpness == -1, must be >= 0"):
        boundary_transition([[0.5, 0.5]], 0.1, sharpness=-1)
