"""Which stages a net goes through that learns from several answers a row."""

import numpy as np
import pytest

from sknoisy import NoisyLabelClassifier
from sknoisy._training.annotators import AnnotatorTrainer

MISSING = -1


@pytest.mark.parametrize("repeated", [True, False])
def test_with_too_few_rows_to_hold_out_matrices_come_from_repeated_answers_alone(repeated):
    """Nothing is compared; where no row has two answers, labels are assumed correct."""
    y = np.array([0, 1, 1])
    answers = np.column_stack([y, y, [0, 1, 0]])
    if not repeated:
        answers = np.where(np.eye(3, dtype=bool), answers, MISSING)
    X = np.array([[0.0], [1.0], [2.0]])
    fitted = NoisyLabelClassifier(max_epochs=2, random_state=0).fit(X, answers)
    assert fitted.noise_model_ == ("s" if repeated else None)
    assert fitted.selection_ == []
    assert set(fitted.history_[:, "stage"]) == {"s" if repeated else "baseline"}


@pytest.mark.parametrize("early_stopping", [True, False])
def test_answers_are_judged_in_rows_that_no_matrix_is_estimated_from(early_stopping, monkeypatch):
    parts, make = [], AnnotatorTrainer._parts

    def record(self):
        found = make(self)
        parts.append(found)
        return found

    monkeypatch.setattr(AnnotatorTrainer, "_parts", record)
    y = np.arange(120) % 3
    answers = np.column_stack([y, y, (y + (np.arange(120) % 4 == 0)) % 3])
    X = np.eye(3)[y] + 0.1 * np.random.default_rng(0).normal(size=(120, 3))
    params = {"hidden_layer_sizes": (4,), "max_epochs": 2, "random_state": 0}
    NoisyLabelClassifier(early_stopping=early_stopping, **params).fit(X, answers)
    assert parts
    for found in parts:
        for seen, judged in found:
            assert len(seen) and len(judged)
            assert not set(seen) & set(judged)
        if not early_stopping:  # each row is judged once
            assert sorted(np.concatenate([judged for _, judged in found])) == list(range(120))


@pytest.mark.parametrize("learn_transition", [True, False])
def test_a_stream_from_a_given_matrix_knows_how_good_annotators_are(learn_transition):
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    X = rng.standard_normal((300, 5)) + 5.0 * np.eye(3, 5)[y]
    guesses = rng.random((300, 3)) < [0.1, 0.3, 0.7]
    answers = np.where(guesses, rng.integers(0, 3, (300, 3)), y[:, None])
    given = np.full((3, 3), 0.1) + 0.7 * np.eye(3)
    estimator = NoisyLabelClassifier(
        transition_init=given, learn_transition=learn_transition, max_epochs=3, random_state=0
    )
    estimator.partial_fit(X, answers, classes=[0, 1, 2])
    quality = estimator.annotator_quality_
    assert np.all(np.diff(quality) < 0)
    np.testing.assert_allclose(quality, (answers == y[:, None]).mean(axis=0), atol=0.15)
    assert np.all(estimator.annotator_answer_counts_ == 300)
