"""
Direct training against EM
==========================

The noise layer can be trained together with the network by gradient descent,
or by expectation maximisation, which alternates between posteriors of the true
labels, a closed-form update of the matrix, and an epoch of the network on soft
targets. From the same start, both find the same noise.
"""

# %%
# Digits under two kinds of noise, two seeds each: splits, noise and weights
# all change.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import TrainingCurveDisplay
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import corrupt_labels, pair_transition, uniform_transition

digits, labels = load_digits(return_X_y=True)
noises = {
    "pair, 40 %": pair_transition(10, 0.4),
    "uniform, 40 %": uniform_transition(10, 0.4),
}
methods = ("direct", "em")

accuracy = {}
error = {}
for name, true_matrix in noises.items():
    for seed in range(2):
        X, X_test, y, y_test = train_test_split(
            digits / 16,
            labels,
            test_size=0.3,
            stratify=labels,
            random_state=seed,
        )
        y_observed = corrupt_labels(y, true_matrix, random_state=seed)
        for method in methods:
            classifier = NoisyLabelClassifier(
                method=method, lr=5e-3, max_epochs=60, random_state=seed
            ).fit(X, y_observed)
            accuracy.setdefault((name, method), []).append(
                classifier.score(X_test, y_test)
            )
            error.setdefault((name, method), []).append(
                transition_matrix_error(
                    classifier.transition_matrix_, true_matrix
                )
            )
for (name, method), values in accuracy.items():
    print(
        f"{name:14} {method:7} clean test accuracy "
        f"{np.mean(values):.3f} +- {np.std(values):.3f}, "
        f"matrix error {np.mean(error[name, method]):.3f}"
    )

# %%
# Accuracy and matrix, side by side
# ---------------------------------
# Bars are means, dots the seeds.

figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
labelled = [
    (accuracy, "clean test accuracy"),
    (error, "mean total variation of the matrix"),
]
for axes, (values, label) in zip(panels, labelled, strict=True):
    for i, (method, colour) in enumerate(
        zip(methods, ("#0072B2", "#009E73"), strict=True)
    ):
        at = np.arange(len(noises)) + 0.36 * (i - 0.5)
        found = [values[name, method] for name in noises]
        axes.bar(
            at, np.mean(found, axis=1), width=0.34, color=colour, label=method
        )
        axes.plot(at, found, "k.", markersize=5)
    axes.set_xticks(range(len(noises)), list(noises))
    axes.set(ylabel=label)
panels[0].set(ylim=(0.85, 1.0), title="The network")
panels[1].set(title="The noise")
panels[0].legend(loc="lower left")

# %%
# How EM converges
# ----------------
# ``history_`` contains the log-likelihood of the observed labels in every
# iteration. Training ends when it changes by less than ``tol``, or when the
# likelihood of held-out labels stops rising.

options = {
    "transition_init": "cluster",
    "max_epochs": 100,
    "early_stopping": True,
    "select_noise_model": False,
    "random_state": 0,
}
classifier = NoisyLabelClassifier(method="em", **options).fit(X, y_observed)
likelihood = [
    row["log_likelihood"] for row in classifier.history_ if row["stage"] == "em"
]
print(f"EM iterations: {len(likelihood)}")
figure, axes = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
axes.plot(range(1, len(likelihood) + 1), likelihood, color="#009E73")
axes.set(
    xlabel="iteration",
    ylabel="mean log-likelihood",
    title="EM: likelihood of the observed labels",
)

# %%
# How direct training converges
# -----------------------------
# :class:`~sknoisy.inspection.TrainingCurveDisplay` draws all stages of a fit.
# With ``transition_prior=0`` the training loss contains no penalty, so that
# both curves are the mean negative log-likelihood of an observed label. The
# baseline memorises labels: its training loss falls below the held-out one.

classifier = NoisyLabelClassifier(transition_prior=0, **options)
TrainingCurveDisplay.from_estimator(classifier.fit(X, y_observed))
plt.show()
