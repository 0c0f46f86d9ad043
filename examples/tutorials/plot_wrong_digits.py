"""
Find mislabelled digits
=======================

A fifth of the digits carry a wrong label. ``find_label_issues`` returns the
most suspicious rows, as many as the estimated noise rate implies, each with a
suggested label.
"""

# %%
# The noise is uneven: some digits are mistaken more often than others, and
# each is mistaken for some digits more often than for others.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import find_label_issues
from sknoisy.noise import corrupt_labels, random_transition

digits = load_digits()
X, y = digits.data / 16, digits.target

# %%
# Two seeds: noise, weights and folds change. With ``cv``, every row is
# judged by a network that was not trained on its label. Precision is the share
# of listed rows whose label is wrong, recall the share of wrong labels that
# are listed.

precision, recall, right = [], [], []
for seed in range(2):
    y_observed = corrupt_labels(
        y, random_transition(10, 0.2, random_state=seed), random_state=seed
    )
    wrong = y_observed != y
    classifier = NoisyLabelClassifier(lr=5e-3, max_epochs=20, random_state=seed)
    issues = find_label_issues(classifier, X, y_observed, cv=3)
    precision.append(wrong[issues.indices].mean())
    recall.append(wrong[issues.indices].sum() / wrong.sum())
    right.append(np.mean(issues.suggested_labels == y[issues.indices]))
    print(f"seed {seed}: {wrong.sum()} labels are wrong, {issues.count} listed")
for name, values in {
    "precision": precision,
    "recall": recall,
    "suggestion right": right,
}.items():
    print(f"{name:16} {np.mean(values):.3f} +- {np.std(values):.3f}")

# %%
# The sixteen most suspicious digits
# ----------------------------------
# The observed label, and the suggested one after the arrow. A circle marks
# labels that are wrong indeed, a cross those that are right.

figure, panels = plt.subplots(4, 4, figsize=(6, 6.6), layout="constrained")
for axes, row, observed, suggested in zip(
    panels.flat,
    issues.indices,
    issues.observed_labels,
    issues.suggested_labels,
    strict=False,
):
    axes.imshow(digits.images[row], cmap="gray_r")
    mark, color = ("✓", "#0072B2") if wrong[row] else ("✗", "#D55E00")
    axes.set_title(f"{observed} → {suggested} {mark}", color=color)
    axes.axis("off")
figure.suptitle("Probably wrong labels (✓: indeed wrong)")
plt.show()
