"""The steps that have a closed form, and when they are taken."""

import numpy as np

from sknoisy import NoisyLabelClassifier
from sknoisy._stages.em import ClosedFormSteps


def test_matrices_of_annotators_follow_when_the_network_has_learned_for_eighty_steps(monkeypatch):
    epochs, step = [], ClosedFormSteps.__call__

    def record(self):
        epochs.append(len(self.net.history))
        return step(self)

    monkeypatch.setattr(ClosedFormSteps, "__call__", record)
    y = np.arange(60) % 3
    answers = np.column_stack([y, y, (y + (np.arange(60) % 4 == 0)) % 3])
    X = np.eye(3)[y] + 0.1 * np.random.default_rng(0).normal(size=(60, 3))
    # So few rows that there is one training only, of ten steps an epoch.
    NoisyLabelClassifier(batch_size=6, max_epochs=12, random_state=0).fit(X, answers)
    assert epochs == [9, 10, 11, 12]
