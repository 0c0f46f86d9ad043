"""Matrices of annotators from answers and predictions."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax, softmax

from sknoisy._crowd.annotators import (
    ALL_ALIKE,
    AnnotatorNoise,
    annotator_counts,
    annotator_quality,
    estimate_annotators,
    explained_log_likelihood,
    fit_annotators,
    log_answer_table,
    mean_transition,
    shrunk_transitions,
    unseen_log_likelihood,
)
from sknoisy._crowd.answers import check_answers
from sknoisy.noise import uniform_transition

N_CLASSES = 4


def crowd(qualities, n_rows=1500, n_answers=2, seed=0, *, alike=0.0):
    """Return true labels, answers, and predictions that are right in seven of ten rows.

    A share `alike` of the answers is that of one draw for all annotators of the row.
    """
    rng = np.random.RandomState(seed)
    y = rng.randint(N_CLASSES, size=n_rows)
    matrices = np.array([uniform_transition(N_CLASSES, 1 - quality) for quality in qualities])
    table = np.full((n_rows, len(qualities)), -1)
    for row, label in enumerate(y):
        draw = rng.uniform()
        for annotator in rng.choice(len(qualities), n_answers, replace=False):
            u = draw if rng.uniform() < alike else rng.uniform()
            edges = np.cumsum(matrices[annotator][label])
            table[row, annotator] = min(int(np.searchsorted(edges, u)), N_CLASSES - 1)
    scores = rng.normal(size=(n_rows, N_CLASSES))
    scores[np.arange(n_rows), y] += 2.0
    return y, check_answers(table)[0], log_softmax(2.0 * scores, axis=1), matrices


def test_counts_and_matrices_by_hand():
    answers, _ = check_answers([[0, 1], [1, -1]])
    posterior = np.array([[0.75, 0.25], [0.5, 0.5]])
    counts = annotator_counts(posterior, answers, np.array([2.0, 1.0]))
    assert_allclose(counts[0], [[1.5, 0.5], [0.5, 0.5]])
    assert_allclose(counts[1], [[0.0, 1.5], [0.0, 0.5]])
    pooled = np.array([[1.5 / 3.5, 2.0 / 3.5], [0.5 / 1.5, 1.0 / 1.5]])
    found = shrunk_transitions(counts, 2.0)
    expected = (counts + 2.0 * pooled) / (counts.sum(axis=2, keepdims=True) + 2.0)
    assert_allclose(found, expected, atol=1e-7)


def test_the_table_holds_the_columns():
    transitions = np.array([uniform_transition(3, 0.3), uniform_transition(3, 0.6)])
    table = log_answer_table(transitions)
    assert_allclose(np.exp(table[2]), transitions[0][:, 2])
    assert_allclose(np.exp(table[3]), transitions[1][:, 0])


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_the_likelihood_of_an_answer_given_the_others_by_hand(power):
    _, answers, log_proba, matrices = crowd((0.9, 0.6, 0.4), n_rows=30)
    found = unseen_log_likelihood(answers, log_proba, matrices, power)
    for position, (row, own) in enumerate(zip(answers.row, answers.annotator, strict=True)):
        belief = np.exp(log_proba[row])
        for at in range(answers.bounds[row], answers.bounds[row + 1]):
            if at != position:
                column = matrices[answers.annotator[at]][:, answers.label[at]]
                belief = belief * column**power
        belief = belief / belief.sum()
        column = matrices[own][:, answers.label[position]]
        assert found[position] == pytest.approx(np.log(belief @ column))


def test_the_probabilities_of_an_answer_sum_to_one():
    _, answers, log_proba, matrices = crowd((0.9, 0.6), n_rows=1)
    total = 0.0
    for label in range(N_CLASSES):
        changed = answers.label.copy()
        changed[0] = label
        other, _ = check_answers([changed], classes=np.arange(N_CLASSES))
        total += np.exp(unseen_log_likelihood(other, log_proba, matrices, 0.4)[0])
    assert total == pytest.approx(1.0)


def test_predictions_improve_the_matrices():
    y, answers, log_proba, matrices = crowd((0.9, 0.6, 0.5, 0.3))
    alone, _ = fit_annotators(answers)
    with_x, posterior = fit_annotators(answers, log_proba)
    assert np.abs(with_x - matrices).mean() < np.abs(alone - matrices).mean()
    assert np.abs(with_x - matrices).mean() < 0.05
    assert np.mean(posterior.argmax(axis=1) == y) > 0.85


def test_a_row_of_weight_two_counts_as_two_rows():
    _, answers, log_proba, _ = crowd((0.9, 0.6, 0.5), n_rows=60)
    twice = np.r_[np.arange(60), np.arange(20)]
    weight = np.r_[np.full(20, 2.0), np.ones(40)]
    weighted, _ = fit_annotators(answers, log_proba, weight)
    repeated, _ = fit_annotators(answers.take(twice), log_proba[twice])
    assert_allclose(weighted, repeated, atol=1e-10)


def test_all_alike_is_chosen_where_all_are_alike_and_not_where_they_differ():
    _, alike, log_proba, _ = crowd((0.6,) * 12)
    assert estimate_annotators(log_proba, alike, random_state=0).annotator_prior >= 16
    _, differ, log_proba, matrices = crowd((0.95, 0.95, 0.3, 0.3))
    found = estimate_annotators(log_proba, differ, random_state=0)
    assert found.annotator_prior < ALL_ALIKE
    assert np.abs(found.transitions - matrices).mean() < 0.06


def test_a_smaller_power_is_chosen_where_annotators_err_alike():
    qualities = (0.6,) * 4
    _, independent, log_proba, _ = crowd(qualities, n_answers=4)
    _, alike, log_proba_of_alike, _ = crowd(qualities, n_answers=4, alike=0.9)
    power = estimate_annotators(log_proba, independent, random_state=0).answer_power
    smaller = estimate_annotators(log_proba_of_alike, alike, random_state=0).answer_power
    assert smaller < power
    assert power >= 0.7


def test_what_the_user_chose_is_kept():
    _, answers, log_proba, _ = crowd((0.9, 0.6), n_rows=200)
    found = estimate_annotators(log_proba, answers, annotator_prior=3.0, answer_power=0.6)
    assert (found.annotator_prior, found.answer_power) == (3.0, 0.6)


def test_better_predictions_explain_more():
    _, answers, log_proba, _ = crowd((0.8, 0.6, 0.5))
    order = np.random.RandomState(1).permutation(len(answers))
    worse = np.where(order[:, None] % 3 == 0, log_proba[order], log_proba)
    parts = [(order[:700], order[700:])]
    good, bad = (explained_log_likelihood(p, answers, None, parts) for p in (log_proba, worse))
    assert_array_equal(np.flatnonzero(~np.isnan(good)), np.sort(order[700:]))
    assert np.nanmean(good) > np.nanmean(bad) + 0.05


def test_quality_is_the_share_of_right_answers_with_its_error():
    y, answers, _, _ = crowd((0.9, 0.6, 0.3))
    quality, error = annotator_quality(annotator_counts(np.eye(N_CLASSES)[y], answers))
    assert_allclose(quality, [0.9, 0.6, 0.3], atol=0.05)
    n_answers = answers.answers_of_annotators()
    assert_allclose(error, np.sqrt(quality * (1 - quality) / (n_answers + 2)))


def test_given_matrices_become_a_start_and_their_mean_is_weighted_by_answers():
    answers, _ = check_answers([[0, 1], [1, -1], [0, -1]])
    start = AnnotatorNoise.of(np.array([np.eye(2), np.eye(2)[::-1]]), answers, None, None)
    assert_allclose(start.transitions[1], np.eye(2)[::-1], atol=1e-7)
    assert_allclose(
        mean_transition(start.transitions, answers), [[0.75, 0.25], [0.25, 0.75]], atol=1e-7
    )
    for_all = AnnotatorNoise.of(uniform_transition(2, 0.1), answers, 2.0, 0.5)
    assert_array_equal(for_all.transitions[0], for_all.transitions[1])


def test_posteriors_multiply_the_answers():
    answers, _ = check_answers([[0, 1]])
    matrices = np.array([uniform_transition(2, 0.1), uniform_transition(2, 0.4)])
    table = 0.5 * log_answer_table(matrices)
    found = softmax(answers.indicator() @ table, axis=1)[0]
    odds = np.sqrt(0.9 * 0.4 / (0.1 * 0.6))
    assert found[0] / found[1] == pytest.approx(odds)
