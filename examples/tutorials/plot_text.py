"""
Short texts
===========

TF-IDF features of short texts form a sparse matrix, which the classifier
accepts as it is. Labels are strings. Here messages to a shop were filed under
the wrong topic in a third of the cases.
"""

# %%
# Twenty sentences with gaps, and words to fill them with, give a few hundred
# messages.

import itertools

import matplotlib.pyplot as plt
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import TransitionMatrixDisplay
from sknoisy.noise import corrupt_labels, pair_transition

ITEMS = [
    "lamp",
    "chair",
    "kettle",
    "jacket",
    "bicycle",
    "clock",
    "tent",
    "radio",
]
TIMES = ["yesterday", "last week", "on Monday", "in May"]
TEMPLATES = {
    "delivery": [
        "my {item} was sent {time} and has not arrived",
        "where is the parcel with the {item}, ordered {time}?",
        "the courier left the {item} at the wrong door {time}",
        "the tracking of the {item} stopped {time}",
        "can you ship the {item} to another address than {time}?",
    ],
    "payment": [
        "the card was charged twice for the {item} {time}",
        "please send an invoice for the {item} bought {time}",
        "my voucher was not accepted for the {item} {time}",
        "the bank refused to pay for the {item} {time}",
        "the price of the {item} on the bill of {time} is wrong",
    ],
    "quality": [
        "the {item} broke {time} after one day of use",
        "there is a scratch on the {item} that came {time}",
        "the {item} makes a strange noise since {time}",
        "a part of the {item} was missing {time}",
        "the colour of the {item} faded {time}",
    ],
    "return": [
        "I want to give back the {item} bought {time}",
        "how do I exchange the {item} of {time} for a larger one?",
        "the refund for the {item} of {time} is still due",
        "I changed my mind about the {item} {time}",
        "please cancel the {item} that I ordered {time}",
    ],
}
texts, topics = [], []
for topic, templates in TEMPLATES.items():
    for template, item, time in itertools.product(templates, ITEMS, TIMES):
        texts.append(template.format(item=item, time=time))
        topics.append(topic)
print(f"{len(texts)} messages, for instance: {texts[0]!r} ({topics[0]})")

# %%
# Messages of each topic are filed under one other topic. Two seeds: splits,
# noise and weights change.

classes = sorted(TEMPLATES)
scores = {None: [], "s": []}
for seed in range(2):
    train, test, y, y_test = train_test_split(
        texts, topics, test_size=0.5, stratify=topics, random_state=seed
    )
    codes = corrupt_labels(
        np.searchsorted(classes, y),
        pair_transition(4, 0.35),
        exact=True,
        random_state=seed,
    )
    y_observed = np.array(classes)[codes]
    for noise_model in scores:
        model = make_pipeline(
            TfidfVectorizer(),
            NoisyLabelClassifier(
                noise_model=noise_model,
                lr=5e-3,
                max_epochs=15,
                random_state=seed,
            ),
        ).fit(train, y_observed)
        scores[noise_model].append(model.score(test, y_test))
for noise_model, values in scores.items():
    print(
        f"noise_model={noise_model!r:4} clean test accuracy "
        f"{np.mean(values):.3f} +- {np.std(values):.3f}"
    )

# %%
# The estimated noise, with the names of the topics.

classifier = model[-1]
features = model[0].transform(train)
print(f"features: {features.shape}, {type(features).__name__}")
figure, axes = plt.subplots(figsize=(5.2, 4.2), layout="constrained")
TransitionMatrixDisplay.from_estimator(model, ax=axes)
axes.set(
    xlabel="observed topic",
    ylabel="true topic",
    title="35 % of each topic misfiled",
)
plt.show()
