"""
Texts as tokens
===============

A recurrent network reads texts of varying length, word by word. A text is a
list of numbers of words, a data set gives one after the other, and a
``collate_fn`` pads those of a batch. The whole numbers reach the embedding as
they are.
"""

# %%
# Sentences about three kinds of things, from a small grammar; 35 % of the
# topics are wrong.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.data import Dataset

from sknoisy import IndexableDataset, NoisyLabelClassifier
from sknoisy.inspection import find_label_issues
from sknoisy.noise import corrupt_labels, pair_transition

TOPICS = {
    "cooking": "stir the soup, bake the bread, fry an onion, salt the dough, "
    "peel a carrot, taste",
    "sailing": "hoist the sail, tie a knot, drop the anchor, watch the wind, "
    "steer to port, reef",
    "gardening": "dig the soil, plant a bulb, prune the rose, water the lawn, "
    "sow a seed, weed",
}
LINKS = ["and then", "before you", "while we", "or later", "and slowly"]
rng = np.random.default_rng(0)
texts, topics = [], []
for _ in range(1200):
    topic = str(rng.choice(list(TOPICS)))
    own = TOPICS[topic].split(", ")
    others = ", ".join(
        text for name, text in TOPICS.items() if name != topic
    ).split(", ")
    parts = [
        *rng.choice(own, size=rng.integers(2, 4)),
        *rng.choice(others, size=1),
    ]
    rng.shuffle(parts)
    texts.append(
        " ".join(f"{part} {rng.choice(LINKS)}" for part in parts).rsplit(
            " ", 2
        )[0]
    )
    topics.append(topic)
topics = np.array(topics)
names = np.array(sorted(TOPICS))
codes = corrupt_labels(
    np.searchsorted(names, topics),
    pair_transition(3, 0.35),
    exact=True,
    random_state=0,
)
y_observed = names[codes]
print(f"{texts[0]!r} is about {topics[0]}, labelled {y_observed[0]}")

# %%
# Words are numbered from one, zero is the padding. An item is a dictionary,
# and so is a batch: its values are the arguments of the module.

words = sorted({word for text in texts for word in text.split()})
number = {word: i for i, word in enumerate(words, 1)}


class Texts(Dataset):
    """Numbers of words."""

    def __init__(self, texts):
        self.tokens = [
            torch.tensor([number[word] for word in text.split()])
            for text in texts
        ]

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, i):
        return {"tokens": self.tokens[i], "length": len(self.tokens[i])}


def pad(items):
    """Make a batch of texts of varying length."""
    return {
        "tokens": pad_sequence(
            [item["tokens"] for item in items], batch_first=True
        ),
        "length": torch.tensor([item["length"] for item in items]),
    }


class Reader(nn.Module):
    """The last state of a recurrent network is the hidden layer."""

    def __init__(self, n_words, n_hidden=32):
        super().__init__()
        self.embedding = nn.Embedding(n_words + 1, 16, padding_idx=0)
        self.gru = nn.GRU(16, n_hidden, batch_first=True)

    def forward(self, tokens, length):
        """Return the state after the last word."""
        embedded = pack_padded_sequence(
            self.embedding(tokens),
            length.cpu(),
            batch_first=True,
            enforce_sorted=False,
        )
        return self.gru(embedded)[1][-1]


rows = IndexableDataset(Texts(texts))
train, test = train_test_split(
    np.arange(len(rows)), test_size=0.4, random_state=0
)
classifier = NoisyLabelClassifier(
    Reader,
    module__n_words=len(words),
    iterator_train__collate_fn=pad,
    lr=0.01,
    max_epochs=15,
    early_stopping=True,
    random_state=0,
)
for noise_model in (None, "s"):
    classifier.set_params(noise_model=noise_model).fit(
        rows[train], y_observed[train]
    )
    score = classifier.score(rows[test], topics[test])
    print(f"noise_model={noise_model!r:4} clean test accuracy {score:.3f}")

# %%
# Which labels are wrong
# ----------------------
# Texts that were not trained on, the worst label first.

issues = find_label_issues(classifier, rows[test], y_observed[test])
wrong = y_observed[test] != topics[test]
share = wrong[issues.indices].mean()
print(f"{issues.count} labels are suspected; {share:.0%} of them are wrong")
for rank, row in enumerate(test[issues.indices[:6]]):
    labels = issues.observed_labels[rank], issues.suggested_labels[rank]
    print("{:>9} -> {:9}".format(*labels), texts[row][:55])

figure, axes = plt.subplots(figsize=(5.2, 3.2), layout="constrained")
quality = np.asarray(issues.all_quality)
axes.hist(
    [quality[~wrong], quality[wrong]],
    bins=20,
    stacked=True,
    label=["right", "wrong"],
    color=["0.7", "tab:red"],
)
axes.set(
    xlabel="probability that the label is right", ylabel="texts", yscale="log"
)
axes.legend(title="the label is")
plt.show()
