"""
A pretrained backbone
=====================

A backbone that has learned from other data is the hidden layers: frozen, or
fine-tuned with a learning rate of its own. Backbones that return an object, as
those of ``transformers`` do, are taken as they are. This one is made here: it
learns from pictures of another camera, whose labels are right, and then serves
to find wrong labels among pictures of which there are few.
"""

# %%
# The backbone returns its states and a mean of them under the names that
# ``transformers`` uses.

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import find_label_issues
from sknoisy.noise import corrupt_labels, pair_transition


class Backbone(nn.Module):
    """Two convolutions; takes the pictures by the name of ``pixel_values``."""

    def __init__(self, channels=16):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1), nn.ReLU()
        )
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()
        )

    def forward(self, pixel_values):
        """Return all states, and their largest values in four quarters."""
        states = self.body(nn.functional.max_pool2d(self.stem(pixel_values), 2))
        pooled = nn.functional.adaptive_max_pool2d(states, 2)
        return SimpleNamespace(last_hidden_state=states, pooler_output=pooled)


digits = load_digits()
images = (digits.images[:, None] / 16).astype(np.float32)
few, others = train_test_split(
    np.arange(len(images)),
    train_size=300,
    stratify=digits.target,
    random_state=0,
)
source, test = others[:800], others[800:]

# %%
# Pretraining, on grainy pictures: the classifier serves for that as well. Its
# ``module`` takes pictures by name, as a dictionary of arrays holds them.

grain = 0.2 * np.random.default_rng(0).standard_normal(
    images.shape, dtype=np.float32
)
grainy = {"pixel_values": (images + grain)[source]}
pretraining = NoisyLabelClassifier(
    Backbone,
    noise_model=None,
    early_stopping=False,
    lr=6e-3,
    max_epochs=8,
    random_state=0,
).fit(grainy, digits.target[source])
backbone = pretraining.net_.network.hidden

# %%
# 300 pictures without grain, a third of which is labelled wrongly.

X, X_test = {"pixel_values": images[few]}, {"pixel_values": images[test]}
y_observed = corrupt_labels(
    digits.target[few], pair_transition(10, 0.33), exact=True, random_state=0
)


def frozen():
    """Return a copy whose weights stay as they are."""
    copy = Backbone()
    copy.load_state_dict(backbone.state_dict())
    return copy.requires_grad_(False)


WAYS = {
    "new weights": {"module": Backbone},
    "frozen": {"module": frozen},
    "fine-tuned": {
        "module": backbone,
        "optimizer__param_groups": [
            ("stem*", {"lr": 1e-4}),
            ("body*", {"lr": 3e-4}),
        ],
    },
}
classifiers, scores = {}, {}
for name, params in WAYS.items():
    classifiers[name] = NoisyLabelClassifier(
        **params,
        lr=6e-3,
        batch_size=32,
        max_epochs=12,
        early_stopping=True,
        random_state=0,
    ).fit(X, y_observed)
    scores[name] = classifiers[name].score(X_test, digits.target[test])
    print(f"{name:12} clean test accuracy {scores[name]:.3f}")

# %%
# Which labels are wrong
# ----------------------

issues = find_label_issues(classifiers["frozen"], X, y_observed)
wrong = y_observed != digits.target[few]
share = wrong[issues.indices].mean()
print(f"{issues.count} labels are suspected; {share:.0%} of them are wrong")
print(f"{wrong.sum()} of {len(few)} are")
figure, axes = plt.subplots(2, 6, figsize=(7.2, 3.2), layout="constrained")
for rank, panel in enumerate(axes.flat[: issues.count]):
    panel.imshow(images[few[issues.indices[rank]], 0], cmap="gray_r")
    panel.set_title(
        f"{issues.observed_labels[rank]} → {issues.suggested_labels[rank]}"
    )
    panel.set_axis_off()
figure.suptitle("The label → what it might be")
plt.show()
