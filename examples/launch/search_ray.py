"""
A search whose trials run on Ray
================================

On this machine, or on a cluster with ``ray.init(address="auto")`` (needs ``pip install ray``)::

    python examples/launch/search_ray.py

``ray.util.joblib`` gives joblib, and so scikit-learn, a backend. Each fit of the search is one
task, in one process. X travels once: joblib hands the arrays to Ray's object store, from which all
tasks of a machine read the same copy. A module must be importable on the workers, or defined in the
script that starts them, from where it travels by value.
"""

import joblib
import numpy as np
import ray
from ray.util.joblib import register_ray
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from torch import nn

from sknoisy import NoisyLabelClassifier
from sknoisy.metrics import noisy_log_likelihood_scorer
from sknoisy.noise import corrupt_labels, pair_transition


class Hidden(nn.Module):
    """Two hidden layers."""

    def __init__(self, width: int = 50) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )

    def forward(self, X):
        """Return the last hidden layer."""
        return self.layers(X)


def main() -> None:
    """Search over the width and the noise model."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    y_observed = corrupt_labels(y, pair_transition(10, 0.4), random_state=0)
    search = GridSearchCV(
        NoisyLabelClassifier(Hidden, max_epochs=20, random_state=0),
        {"module__width": [25, 50], "noise_model": [None, "s"]},
        scoring=noisy_log_likelihood_scorer,
        cv=2,
        verbose=2,  # a line for each fit that is over
    )
    ray.init(num_cpus=2)
    register_ray()
    with joblib.parallel_config("ray", n_jobs=2):
        search.fit(X, y_observed)
    print(f"best: {search.best_params_}, log-likelihood {search.best_score_:.2f}")


if __name__ == "__main__":
    main()
