import numpy as np
import pytest
from scipy.special import log_softmax

from sknoisy._transition import calibration
from sknoisy._transition.calibration import recalibrate, sharpen, shrunk_to_pooled_noise
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import (
    corrupt_labels,
    pair_transition,
    random_transition,
    uniform_transition,
)

T = random_transition(3, 0.4, random_state=1)


@pytest.fixture(scope="module")
def problem():
    """Return calibrated clean log-probabilities and labels seen through T."""
    random = np.random.RandomState(0)
    log_proba = log_softmax(2 * random.normal(size=(6000, 3)), axis=1)
    true = (np.exp(log_proba).cumsum(axis=1) < random.uniform(size=(6000, 1))).sum(axis=1)
    return log_proba, true, corrupt_labels(true, T, random_state=random, classes=range(3))


@pytest.mark.parametrize("distortion", [0.4, 1.0, 3.0])
def test_sharpness_and_noise_are_found_whatever_the_sharpness_was(problem, distortion):
    log_proba, _, target = problem
    given = log_softmax(distortion * log_proba, axis=1)
    found = recalibrate(given, target, np.full((3, 3), 0.1) + 0.7 * np.eye(3))
    assert found.sharpness == pytest.approx(1 / distortion, rel=0.15)
    assert transition_matrix_error(found.transition, T) < 0.04


def test_start_makes_no_difference(problem):
    log_proba, _, target = problem
    starts = np.eye(3), np.full((3, 3), 1 / 3), np.roll(np.eye(3), 1, axis=1)
    found = [recalibrate(log_proba, target, s, pseudo_count=0.0).transition for s in starts]
    assert np.ptp(found, axis=0).max() < 0.02


def test_mean_posterior_is_the_mean_clean_probability_at_the_optimum(problem):
    log_proba, _, target = problem
    found = recalibrate(log_proba, target, T, pseudo_count=0.0)
    counts = found.posterior.T @ np.eye(3)[target]
    np.testing.assert_allclose(
        counts / counts.sum(axis=1, keepdims=True), found.transition, atol=2e-3
    )
    assert found.n_parameters == 7


def test_posterior_is_calibrated(problem):
    log_proba, true, target = problem
    found = recalibrate(log_softmax(3 * log_proba, axis=1), target, T)
    right = found.posterior[np.arange(len(true)), target]
    for low in (0.0, 0.25, 0.5, 0.75):
        rows = (right >= low) & (right < low + 0.25)
        assert abs(right[rows].mean() - (true == target)[rows].mean()) < 0.05


def test_given_noise_is_kept(problem):
    log_proba, _, target = problem
    column = np.log(T).T[target]
    found = sharpen(log_softmax(0.5 * log_proba, axis=1), column)
    assert found.log_column is column and found.transition is None and found.n_parameters == 1
    assert found.sharpness == pytest.approx(2.0, rel=0.1)


def test_weight_two_is_the_row_twice(problem):
    log_proba, _, target = problem
    log_proba, target = 2 * log_proba[:1500], target[:1500]
    weight = np.random.RandomState(0).randint(0, 4, 1500)
    column = np.log(T).T[target]
    repeated = [np.repeat(a, weight, axis=0) for a in (log_proba, column, target)]
    pairs = [
        (sharpen(log_proba, column, weight), sharpen(*repeated[:2])),
        (
            calibration.with_pooled_noise(log_proba, target, weight),
            calibration.with_pooled_noise(repeated[0], repeated[2]),
        ),
    ]
    for weighted, expected in pairs:
        assert weighted.sharpness == pytest.approx(expected.sharpness, rel=1e-2)
    np.testing.assert_allclose(pairs[1][0].transition, pairs[1][1].transition, atol=2e-3)
    ignored = sharpen(log_proba, column)
    assert abs(ignored.sharpness - pairs[0][1].sharpness) > 1e-3


@pytest.mark.parametrize("n_steps", [1, 2, 3, 4, 5, 6])
def test_likelihood_is_that_of_the_matrix_wherever_em_is_cut_off(monkeypatch, problem, n_steps):
    log_proba, _, target = problem
    monkeypatch.setattr(calibration, "_MAX_STEPS", n_steps)
    for weight in (1.0, 1e6):
        rows = [target == j for j in range(3)]
        proba = [np.exp(log_proba)[r] for r in rows]
        weights = [np.full(r.sum(), weight) for r in rows]
        prior = np.zeros((3, 3))
        start = np.full((3, 3), 0.05) + 0.85 * np.eye(3)
        found, value = calibration.most_likely_transition(proba, weights, start, prior)
        likelihoods = [p @ found[:, j] for j, p in enumerate(proba)]
        expected = sum(w @ np.log(q) for w, q in zip(weights, likelihoods, strict=True))
        assert value == pytest.approx(expected)


@pytest.mark.parametrize("pseudo_count", [0.0, 0.5, 4.0])
def test_a_pseudo_count_is_so_many_labels_for_each_entry(problem, monkeypatch, pseudo_count):
    log_proba, _, target = problem
    seen, fit = [], calibration.most_likely_transition

    def spy(proba, weight, start, pseudo_counts):
        seen.append(pseudo_counts)
        return fit(proba, weight, start, pseudo_counts)

    monkeypatch.setattr(calibration, "most_likely_transition", spy)
    recalibrate(log_proba, target, T, pseudo_count=pseudo_count)
    assert seen
    for counts in seen:
        assert counts.sum() == pytest.approx(9 * pseudo_count)
        np.testing.assert_allclose(counts, 3 * pseudo_count * T, atol=0.02 * pseudo_count + 1e-12)


def test_twice_the_rows_and_twice_the_pseudo_counts_give_the_same(problem):
    log_proba, _, target = problem
    log_proba, target = log_proba[:300], target[:300]
    start = np.eye(3)
    once = recalibrate(log_proba, target, start, pseudo_count=5.0)
    twice = recalibrate(
        *(np.repeat(a, 2, axis=0) for a in (log_proba, target)), start, pseudo_count=10.0
    )
    np.testing.assert_allclose(twice.transition, once.transition, atol=5e-3)
    free = recalibrate(log_proba, target, start, pseudo_count=0.1)
    assert np.abs(free.transition - once.transition).max() > 0.02
    # Many of them hold the matrix where it was.
    held = recalibrate(log_proba, target, start, pseudo_count=1e5)
    assert np.abs(held.transition - np.eye(3)).max() < 0.03


def test_impossible_classes_do_no_harm():
    log_proba = np.full((90, 2), -np.inf)
    log_proba[np.arange(90), np.arange(90) // 60] = 0.0
    found = recalibrate(log_proba, np.arange(90) % 2, np.eye(2), pseudo_count=0.1)
    assert np.isfinite(found.log_likelihood).all()
    np.testing.assert_allclose(found.transition, 0.5, atol=0.05)


@pytest.mark.parametrize("pseudo_count", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("n_rows", [300, 6000])
def test_so_many_labels_are_added_for_each_entry_of_the_matrix(problem, n_rows, pseudo_count):
    log_proba, target = problem[0][:n_rows], problem[2][:n_rows]
    start = random_transition(3, 0.6, random_state=5)
    found = recalibrate(log_proba, target, start, pseudo_count=pseudo_count)
    prior = 0.99 * start + 0.01 * np.bincount(target) / n_rows
    counts = found.posterior.T @ np.eye(3)[target] + pseudo_count * 3 * prior
    counts /= counts.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.transition, counts, atol=2e-3)


def test_em_is_accelerated(monkeypatch):
    """Of ten classes 25 steps find what takes two hundred without extrapolation."""
    random = np.random.RandomState(3)
    log_proba = log_softmax(random.normal(size=(3000, 10)), axis=1)
    true = (np.exp(log_proba).cumsum(axis=1) < random.uniform(size=(3000, 1))).sum(axis=1)
    noise = random_transition(10, 0.4, random_state=1)
    target = corrupt_labels(true.clip(max=9), noise, random_state=random, classes=range(10))
    rows = [target == j for j in range(10)]
    given = (
        [np.exp(log_proba)[r] for r in rows],
        [np.ones(r.sum()) for r in rows],
        np.full((10, 10), 0.005) + 0.95 * np.eye(10),
        np.zeros((10, 10)),
    )
    best = calibration.most_likely_transition(*given)[1]
    monkeypatch.setattr(calibration, "_MAX_STEPS", 30)
    assert calibration.most_likely_transition(*given)[1] == pytest.approx(best, abs=0.1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("transition", [uniform_transition(10, 0.5), pair_transition(10, 0.4)])
def test_wrong_labels_are_uniform_where_labels_left_out_say_so(transition, weighted):
    """Fifty rows of each class do not tell 90 rates; one rate is nearer if noise is uniform."""
    errors, n_uniform, is_uniform = [], 0, transition[0, 2] > 0
    for seed in range(4):
        random = np.random.RandomState(seed)
        log_proba = log_softmax(3 * random.normal(size=(500, 10)), axis=1)
        true = (np.exp(log_proba).cumsum(axis=1) < random.uniform(size=(500, 1))).sum(axis=1)
        target = corrupt_labels(true, transition, exact=True, random_state=seed, classes=range(10))
        weight = np.full(500, 2.0) if weighted else None
        found, free = (
            shrunk_to_pooled_noise(
                log_proba, target, weight, may_be_uniform=may_be, random_state=0
            ).transition
            for may_be in (True, False)
        )
        wrong = found[~np.eye(10, dtype=bool)]
        n_uniform += np.ptp(wrong) < 0.1 * wrong.mean()
        errors.append([transition_matrix_error(matrix, transition) for matrix in (found, free)])
    assert n_uniform == (4 if is_uniform else 0)
    of_found, of_free = np.mean(errors, axis=0)
    assert of_found < 0.5 * of_free if is_uniform else of_found == of_free
