"""
A search whose trials run on Dask
=================================

On this machine, or on a cluster with ``Client("tcp://scheduler:8786")`` (needs
``pip install "dask[distributed]"``)::

    python examples/launch/search_dask.py

joblib's backend for Dask sends each fit of the search to a worker, in one process. ``scatter`` puts
X and y on the workers once, before the fits; without it they travel with each of them. A module
travels by value if it is defined in the script, and else must be importable on the workers. The
dashboard of the client shows the fits that run.
"""

import joblib
import numpy as np
from dask.distributed import Client, LocalCluster
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
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        joblib.parallel_config("dask", scatter=[X, y_observed]),
    ):
        print(f"workers: {len(client.scheduler_info()['workers'])}")
        search.fit(X, y_observed)
    print(f"best: {search.best_params_}, log-likelihood {search.best_score_:.2f}")


if __name__ == "__main__":
    main()
