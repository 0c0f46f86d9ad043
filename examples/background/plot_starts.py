"""
Why the start matters
=====================

The likelihood of the labels does not tell noise from a hard problem, so the
matrix that training starts from decides what it finds. The published start
averages the predictions of a first network, which blurs heavy noise. The
default looks for a matrix that explains predictions for rows that the network
was not trained on.
"""

# %%
# Digits, 45 % of which carry the label of the next digit: barely more right
# labels than wrong ones. Two seeds: splits, noise and weights all change.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import TransitionMatrixDisplay
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import corrupt_labels, pair_transition

digits, labels = load_digits(return_X_y=True)
true_matrix = pair_transition(10, 0.45)
starts = {
    "published": {
        "transition_init": "confusion",
        "transition_prior": 0.0,
        "select_noise_model": False,
    },
    "default": {},
    "known matrix": {"transition_init": true_matrix, "learn_transition": False},
}
scores = {name: [] for name in starts}
matrices = {}
for seed in range(2):
    X, X_test, y, y_test = train_test_split(
        digits / 16, labels, test_size=0.3, stratify=labels, random_state=seed
    )
    y_observed = corrupt_labels(y, true_matrix, exact=True, random_state=seed)
    for name, options in starts.items():
        classifier = NoisyLabelClassifier(
            lr=0.01, max_epochs=10, random_state=seed, **options
        ).fit(X, y_observed)
        scores[name].append(classifier.score(X_test, y_test))
        if seed == 0:
            matrices[name] = (
                classifier.initial_transition_matrix_,
                classifier.transition_matrix_,
            )
for name, values in scores.items():
    errors = [
        transition_matrix_error(matrix, true_matrix)
        for matrix in matrices[name]
    ]
    print(
        f"{name:13} clean test accuracy {np.mean(values):.3f} "
        f"+- {np.std(values):.3f}, matrix error "
        f"{errors[0]:.3f} at the start, {errors[1]:.3f} at the end"
    )

# %%
# Where it starts and where it ends
# ---------------------------------
# Rows are true digits, columns observed ones. Training cannot recover from the
# blurred start.

figure, panels = plt.subplots(2, 2, figsize=(8, 8), layout="constrained")
for row, name in zip(panels, ("published", "default"), strict=True):
    for axes, matrix, when in zip(
        row, matrices[name], ("start", "end"), strict=True
    ):
        TransitionMatrixDisplay.from_matrix(matrix, ax=axes, colorbar=False)
        error = transition_matrix_error(matrix, true_matrix)
        axes.set_title(f"{name}: {when} (error {error:.2f})")
plt.show()
