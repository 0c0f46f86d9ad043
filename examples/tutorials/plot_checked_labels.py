"""
Labels that were checked: fifty at a time
=========================================

Four in ten labels of the digits are wrong. Somebody checks fifty of them, the
model is fitted again with these rows as `trusted`, and the next fifty are
chosen.
"""

# %%
# Three rules choose what is checked: `sknoisy.inspection.next_labels`, the
# self-confidence of a network without a noise model, as cleanlab orders rows,
# and chance.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_predict, train_test_split

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import (
    TransitionMatrixDisplay,
    next_labels,
    noise_test,
)
from sknoisy.noise import corrupt_labels, random_transition

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(
    X / 16, y, train_size=500, stratify=y, random_state=0
)
noise = random_transition(10, 0.4, random_state=0)
y_observed = corrupt_labels(y, noise, random_state=0)
settings = {"max_epochs": 15, "lr": 0.01}
classifier = NoisyLabelClassifier(**settings, random_state=0)
plain = NoisyLabelClassifier(noise_model=None, **settings, random_state=0)


def by_next_labels(model, labels, trusted):
    return next_labels(model, X, labels, 50, trusted=trusted).indices


def by_self_confidence(model, labels, trusted):
    proba = cross_val_predict(plain, X, labels, cv=3, method="predict_proba")
    confidence = proba[np.arange(len(labels)), labels]
    return np.argsort(np.where(trusted, np.inf, confidence))[:50]


def at_random(model, labels, trusted):
    rows = np.flatnonzero(~trusted)
    return np.random.RandomState(len(rows)).permutation(rows)[:50]


# %%
# Fifty labels are checked, twice. What was observed before goes in as
# `noisy_label`: rows that were chosen because they look wrong would otherwise
# be missing among the noisy ones.
rules = {
    "next_labels": by_next_labels,
    "self-confidence": by_self_confidence,
    "at random": at_random,
}
first = classifier.fit(X, y_observed)
accuracy, corrected = {}, {}
for name, rule in rules.items():
    labels, trusted = y_observed.copy(), np.zeros(len(y), dtype=bool)
    model = first
    accuracy[name], corrected[name] = [model.score(X_test, y_test)], [0]
    for _ in range(2):
        rows = rule(model, labels, trusted)
        wrong = np.sum(labels[rows] != y[rows])
        labels[rows] = y[rows]
        trusted[rows] = True
        before = np.where(trusted, y_observed, -1)
        model = clone(classifier)
        model.fit(X, labels, trusted=trusted, noisy_label=before)
        corrected[name].append(int(corrected[name][-1] + wrong))
        accuracy[name].append(model.score(X_test, y_test))
    print(f"{name:16s} corrected {corrected[name][1:]}", end=", ")
    print(f"accuracy {np.round(accuracy[name], 3)}")

# %%
# The two orders correct a wrong label with nearly every check, chance with four
# in ten. That is how to clean labels. The network learns as much from a random
# sample: what it is sure of need not be told.
figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
checks = np.arange(3) * 50
for name, color in zip(rules, ("C0", "C1", "0.5"), strict=True):
    axes[0].plot(checks, corrected[name], marker="o", color=color, label=name)
    axes[1].plot(checks, accuracy[name], marker="o", color=color, label=name)
axes[0].set(xlabel="checked labels", ylabel="wrong labels corrected")
axes[1].set(xlabel="checked labels", ylabel="accuracy, clean test labels")
axes[0].legend()

# %%
# A random sample of checked rows also tests the matrix that was learned without
# them: a small p-value says that the two differ.
rng = np.random.RandomState(1)
trusted = np.zeros(len(y), dtype=bool)
trusted[rng.permutation(len(y))[:100]] = True
found = noise_test(
    classifier,
    X,
    np.where(trusted, y, y_observed),
    trusted=trusted,
    noisy_label=np.where(trusted, y_observed, -1),
)
print(f"p-value of the learned matrix: {found.pvalue:.2f}")

figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
TransitionMatrixDisplay.from_matrix(
    found.transition_matrix, ax=axes[0], colorbar=False
)
axes[0].set_title("learned without checked labels")
TransitionMatrixDisplay.from_matrix(
    found.counted_transition, ax=axes[1], colorbar=False
)
axes[1].set_title("counted on 100 checked rows")
