"""Which stages a net goes through that learns from several answers a row."""

import numpy as np
import pytest

from sknoisy import NoisyLabelClassifier

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
