"""
Quick start: digits with 40 % wrong labels
==========================================

Forty per cent of the training digits carry the label of the next digit. A
plain network believes them. The same network under a noise layer estimates how
the labels went wrong, and predicts the true digits. Training uses no clean
labels. The script runs in a few seconds on data that scikit-learn ships::

    python examples/plot_quickstart.py            # prints accuracies, saves quickstart.png
"""

# %%
# Wrong labels
# ------------
# ``pair_transition(10, 0.4)`` is the matrix of the noise: row i is the
# distribution of the observed label when the true digit is i. The test labels
# stay clean.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import TransitionMatrixDisplay
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import corrupt_labels, pair_transition

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.3, stratify=y, random_state=0)
true_matrix = pair_transition(10, 0.4)
y_observed = corrupt_labels(y, true_matrix, exact=True, random_state=0)
print(f"training labels that are wrong: {np.mean(y_observed != y):.1%}")

# %%
# The plain network and the noise layer
# -------------------------------------
# ``noise_model=None`` assumes that the labels are correct. The default, the
# s-model, estimates the noise. Three seeds show how much of the difference is
# luck.

plain, noisy = (
    [
        NoisyLabelClassifier(noise_model=noise_model, random_state=seed).fit(X, y_observed)
        for seed in range(3)
    ]
    for noise_model in (None, "s")
)
scores = {
    "plain": [classifier.score(X_test, y_test) for classifier in plain],
    "sknoisy": [classifier.score(X_test, y_test) for classifier in noisy],
}
for name, values in scores.items():
    print(f"{name:14} clean test accuracy {np.mean(values):.3f} +- {np.std(values):.3f}")
found = noisy[0].transition_matrix_
print(f"estimated share of wrong labels: {noisy[0].noise_rate_:.1%}")
print(f"mean total variation of the matrix: {transition_matrix_error(found, true_matrix):.3f}")

# %%
# The estimated noise
# -------------------
# The estimated matrix beside the true one, which the classifier has never
# seen.

figure, (bars, learned, truth) = plt.subplots(
    1, 3, figsize=(11, 3.8), width_ratios=(0.75, 1, 1), layout="constrained"
)
bars.bar(
    list(scores),
    [np.mean(v) for v in scores.values()],
    yerr=[np.std(v) for v in scores.values()],
    color=["0.55", "#0072B2"],
    capsize=4,
)
for position, values in enumerate(scores.values()):
    bars.text(position, np.mean(values) + 0.02, f"{np.mean(values):.3f}", ha="center")
bars.set(ylim=(0, 1.08), ylabel="clean test accuracy", title="40 % of the labels are wrong")
for axes, matrix, title in (
    (learned, found, "estimated noise"),
    (truth, true_matrix, "true noise"),
):
    TransitionMatrixDisplay.from_matrix(matrix, ax=axes, colorbar=False)
    axes.set_title(title)

figure.savefig("quickstart.png", dpi=120)
print("figure saved as quickstart.png")
