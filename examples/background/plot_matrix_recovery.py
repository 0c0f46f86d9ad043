"""
The estimated matrix as noise grows
===================================

How far is the estimated transition matrix from the true one as more and more
labels are wrong? The estimated share of wrong labels follows the truth up to
heavy noise.
"""

# %%
# Each digit gets the label of the next one with a probability from 0 to 45 %.
# The error is the mean total variation between the rows: 0 is exact, and the
# error of assuming that all labels are correct is the noise rate itself. Two
# seeds: splits, noise and weights all change.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sknoisy import NoisyLabelClassifier
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import corrupt_labels, pair_transition

digits, labels = load_digits(return_X_y=True)
rates = [0.0, 0.25, 0.45]
error = np.zeros((len(rates), 2))
estimated = np.zeros_like(error)
accuracy = np.zeros_like(error)
for i, rate in enumerate(rates):
    true_matrix = pair_transition(10, rate)
    for seed in range(2):
        X, X_test, y, y_test = train_test_split(
            digits / 16,
            labels,
            test_size=0.3,
            stratify=labels,
            random_state=seed,
        )
        y_observed = corrupt_labels(
            y, true_matrix, exact=True, random_state=seed
        )
        classifier = NoisyLabelClassifier(
            lr=0.01, max_epochs=10, random_state=seed
        ).fit(X, y_observed)
        error[i, seed] = transition_matrix_error(
            classifier.transition_matrix_, true_matrix
        )
        estimated[i, seed] = classifier.noise_rate_
        accuracy[i, seed] = classifier.score(X_test, y_test)
    print(
        f"noise {rate:4.0%}: estimated {estimated[i].mean():6.1%} "
        f"+- {estimated[i].std():.1%}, "
        f"matrix error {error[i].mean():.3f} +- {error[i].std():.3f}, "
        f"accuracy {accuracy[i].mean():.3f} +- {accuracy[i].std():.3f}"
    )

# %%
# Dots are single runs.

figure, (left, right) = plt.subplots(
    1, 2, figsize=(9, 3.7), layout="constrained"
)
left.plot(rates, rates, "k--", label="truth")
left.plot(rates, estimated.mean(axis=1), color="#0072B2", label="sknoisy")
left.plot(rates, estimated, "k.", markersize=5)
left.set(
    xlabel="share of wrong labels",
    ylabel="estimated share",
    title="Estimated noise rate",
)
left.legend()
right.plot(rates, rates, "k--", label="labels assumed correct")
right.plot(rates, error.mean(axis=1), color="#0072B2", label="sknoisy")
right.plot(rates, error, "k.", markersize=5)
right.set(
    xlabel="share of wrong labels",
    ylabel="mean total variation to the truth",
    title="Error of the matrix",
)
right.legend()
plt.show()
