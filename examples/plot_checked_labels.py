"""
Labels that were checked: fifty at a time
=========================================

Four in ten labels of the digits are wrong. Someone who knows digits checks fifty labels, the model
is fitted again with them as `trusted`, and names the next fifty. With every check the data get
cleaner, and the model learns more of the noise.
"""

# %%
# Three rules say which labels to check next: `sknoisy.inspection.next_labels`, the order of
# cleanlab's self-confidence from probabilities of the network without a noise model, and chance.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_predict, train_test_split

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import TransitionMatrixDisplay, next_labels, noise_test
from sknoisy.noise import corrupt_labels, random_transition

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, train_size=600, stratify=y, random_state=0)
noise = random_transition(10, 0.4, random_state=0)
y_observed = corrupt_labels(y, noise, random_state=0)
classifier = NoisyLabelClassifier(max_epochs=40, lr=0.003, random_state=0)
plain = NoisyLabelClassifier(noise_model=None, max_epochs=20, lr=0.003, random_state=0)


def ours(model, labels, trusted):
    return next_labels(model, X, labels, 50, trusted=trusted).indices


def by_self_confidence(model, labels, trusted):
    proba = cross_val_predict(plain, X, labels, cv=3, method="predict_proba")
    confidence = proba[np.arange(len(labels)), labels]
    return np.argsort(np.where(trusted, np.inf, confidence))[:50]


def at_random(model, labels, trusted):
    return np.random.RandomState(0).permutation(np.flatnonzero(~trusted))[:50]


# %%
# Fifty are checked, three times.
rules = {"next_labels": ours, "self-confidence": by_self_confidence, "at random": at_random}
start = classifier.fit(X, y_observed)
accuracy, corrected = {}, {}
for name, rule in rules.items():
    labels, trusted, model = y_observed.copy(), np.zeros(len(y), dtype=bool), start
    accuracy[name], corrected[name] = [model.score(X_test, y_test)], [0]
    for _ in range(3):
        rows = rule(model, labels, trusted)
        corrected[name].append(corrected[name][-1] + np.sum(labels[rows] != y[rows]))
        labels[rows] = y[rows]
        trusted[rows] = True
        model = NoisyLabelClassifier(**classifier.get_params())
        model.fit(X, labels, trusted=trusted, noisy_label=np.where(trusted, y_observed, -1))
        accuracy[name].append(model.score(X_test, y_test))
    print(f"{name:16s} corrected {corrected[name]}, accuracy {np.round(accuracy[name], 3)}")

# %%
# Of the rows that `next_labels` names nearly all are wrong, of rows at random four in ten.
figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
checks = np.arange(4) * 50
for name in rules:
    axes[0].plot(checks, corrected[name], marker="o", label=name)
    axes[1].plot(checks, accuracy[name], marker="o", label=name)
axes[0].set(xlabel="checked labels", ylabel="wrong labels corrected")
axes[1].set(xlabel="checked labels", ylabel="accuracy on clean test labels")
axes[0].legend()

# %%
# Checked rows whose wrong label is remembered test the matrix that was learned without them. They
# must be a random sample: rows that were chosen because they look wrong are wrong more often.
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
for ax, matrix, title in (
    (axes[0], found.transition_matrix, "learned without checked labels"),
    (axes[1], found.counted_transition, "counted on 100 checked rows"),
):
    TransitionMatrixDisplay.from_matrix(matrix, ax=ax, colorbar=False)
    ax.set_title(title)
