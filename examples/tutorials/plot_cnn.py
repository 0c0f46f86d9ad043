"""
A convolutional network
=======================

Any PyTorch module can be the hidden layers: it maps a batch to a tensor of
shape (n, n_hidden). The softmax layer and the noise layer are added on top.
Images keep their shape, and parameters of the module are parameters of the
classifier.
"""

# %%
# The module need not know the number of classes, nor that labels are noisy.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from sknoisy import NoisyLabelClassifier
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import corrupt_labels, pair_transition


class ConvNet(nn.Sequential):
    """Two convolutions on images of 8 x 8 pixels."""

    def __init__(self, channels=16, n_hidden=64):
        super().__init__(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * channels, n_hidden),
            nn.ReLU(),
        )


digits = load_digits()
images = (digits.images[:, None] / 16).astype(np.float32)
true_matrix = pair_transition(10, 0.4)
scores = {None: [], "s": []}
for seed in range(2):
    X, X_test, y, y_test = train_test_split(
        images,
        digits.target,
        test_size=0.3,
        stratify=digits.target,
        random_state=seed,
    )
    y_observed = corrupt_labels(y, true_matrix, exact=True, random_state=seed)
    for noise_model in scores:
        classifier = NoisyLabelClassifier(
            ConvNet,
            module__channels=8,
            noise_model=noise_model,
            lr=5e-3,
            max_epochs=15,
            random_state=seed,
        ).fit(X, y_observed)
        scores[noise_model].append(classifier.score(X_test, y_test))
print("images:", X.shape)
for noise_model, values in scores.items():
    print(
        f"noise_model={noise_model!r:4} clean test accuracy "
        f"{np.mean(values):.3f} +- {np.std(values):.3f}"
    )
error = transition_matrix_error(classifier.transition_matrix_, true_matrix)
print(f"mean total variation of the matrix: {error:.3f}")

# %%
# Four of ten labels are wrong
# ----------------------------
# Bars are means, dots the seeds.

figure, axes = plt.subplots(figsize=(4.5, 3.6), layout="constrained")
names = ["plain", "sknoisy"]
axes.bar(
    names, [np.mean(v) for v in scores.values()], color=["0.55", "#0072B2"]
)
for i, values in enumerate(scores.values()):
    axes.plot([i] * len(values), values, "k.")
axes.set(
    ylim=(0, 1.02),
    ylabel="clean test accuracy",
    title="The same convolutional network, twice",
)
plt.show()
