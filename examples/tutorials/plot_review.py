"""
From suspicion to clean labels
==============================

A random forest lists suspicious labels, a reviewer looks at them, the
corrections go back into the data, and the forest that is trained on them
predicts better. Any classifier with ``predict_proba`` will do.
"""

# %%
# A third of the digits carry the label of the next digit.

import csv
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from sknoisy.inspection import (
    TransitionMatrixDisplay,
    apply_corrections,
    find_label_issues,
)
from sknoisy.noise import corrupt_labels, pair_transition

digits = load_digits()
train, test = train_test_split(
    np.arange(len(digits.target)),
    test_size=0.4,
    stratify=digits.target,
    random_state=0,
)
X, y = digits.data[train], digits.target[train]
X_test, y_test = digits.data[test], digits.target[test]
folder = Path(mkdtemp())


def review(issues, path, n_rows, y):
    """Play the reviewer, who recognises the digits of the first rows."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "observed_labels", "label"])
        for row, observed in zip(
            issues.indices[:n_rows], issues.observed_labels, strict=False
        ):
            writer.writerow([row, observed, y[row]])


# %%
# The report
# ----------
# ``issues.to_html`` writes a single file that shows the suspicious rows beside
# rows that carry the suggested label. ``a`` accepts a suggestion, ``k`` keeps
# the label, and a button saves the decisions as a CSV file. Here a function
# plays the reviewer. Of 1078 labels, about 360 are wrong, and the reviewer
# looks at the 300 most suspicious ones.
#
# Two seeds: noise and forest change.

scores = {
    "as observed": [],
    "reviewed": [],
    "without listed rows": [],
    "clean": [],
}
for seed in range(2):
    forest = RandomForestClassifier(50, random_state=seed)
    y_observed = corrupt_labels(y, pair_transition(10, 0.33), random_state=seed)
    issues = find_label_issues(forest, X, y_observed, cv=3)
    print(issues)
    issues.to_html(folder / "report.html", X=digits.images[train])
    review(issues, folder / "reviewed.csv", 300, y)
    y_reviewed = apply_corrections(y_observed, folder / "reviewed.csv")
    kept = np.setdiff1d(np.arange(len(y)), issues.indices)
    fits = {
        "as observed": (X, y_observed),
        "reviewed": (X, y_reviewed),
        "without listed rows": (X[kept], y_observed[kept]),
        "clean": (X, y),
    }
    for name, rows in fits.items():
        scores[name].append(forest.fit(*rows).score(X_test, y_test))
for name, values in scores.items():
    print(f"{name:20} {np.mean(values):.3f} +- {np.std(values):.3f}")

# %%
# Accuracy on clean test labels
# -----------------------------
# Leaving the listed rows out needs no reviewer. Here it achieves much of the
# gain, because the wrong labels are many and systematic.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
axes[0].bar(
    range(len(scores)), [np.mean(v) for v in scores.values()], color="#0072B2"
)
axes[0].errorbar(
    range(len(scores)),
    [np.mean(v) for v in scores.values()],
    yerr=[np.std(v) for v in scores.values()],
    fmt="none",
    color="k",
)
axes[0].set_xticks(
    range(len(scores)), [name.replace(" ", "\n", 1) for name in scores]
)
axes[0].set(ylim=(0.6, 1), ylabel="accuracy on clean test labels")
TransitionMatrixDisplay(
    issues.transition_matrix, display_labels=issues.classes
).plot(ax=axes[1], colorbar=False)
plt.show()
