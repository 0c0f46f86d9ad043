"""
A folder of pictures
====================

Pictures in a folder are a data set of torch: a file is read when a batch needs
it, and changed at random each time, so that the network never sees the same
picture twice. What only evaluates, such as predictions and the search for
wrong labels, reads the pictures as they are: that is the second view of the
same rows, ``evaluation``.
"""

# %%
# A folder with a file for each picture, as a project would have it. Its name
# says which label somebody gave it; 35 % of the labels are wrong.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import Dataset

from sknoisy import IndexableDataset, NoisyLabelClassifier
from sknoisy.inspection import find_label_issues
from sknoisy.noise import corrupt_labels, pair_transition

digits = load_digits()
images, y = digits.images[:700], digits.target[:700]
y_observed = corrupt_labels(
    y, pair_transition(10, 0.35), exact=True, random_state=0
)
folder = tempfile.TemporaryDirectory()
for number, (picture, label) in enumerate(zip(images, y_observed, strict=True)):
    path = Path(folder.name, f"{label}", f"{number:04}.png")
    path.parent.mkdir(exist_ok=True)
    Image.fromarray((picture * 15).astype("uint8")).save(path)
paths = sorted(Path(folder.name).rglob("*.png"), key=lambda path: path.name)
print(f"{len(paths)} files, for instance {paths[0].relative_to(folder.name)}")


# %%
# The data set reads a file and applies a transform, as those of torchvision
# do.


class Folder(Dataset):
    """Pictures in a folder for each label."""

    def __init__(self, paths, transform=None):
        self.paths, self.transform = paths, transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        with Image.open(self.paths[i]) as file:
            picture = torch.from_numpy(
                np.asarray(file, dtype=np.float32)[None] / 255
            )
        if self.transform is not None:
            picture = self.transform(picture)
        return picture, int(self.paths[i].parent.name)


def shift(picture):
    """Move a picture by up to a pixel."""
    down, right = torch.randint(3, (2,)).tolist()
    return nn.functional.pad(picture, (1, 1, 1, 1))[
        :, down : down + 8, right : right + 8
    ]


rows = IndexableDataset(Folder(paths, shift), evaluation=Folder(paths))

# %%
# Scikit-learn splits the data set by row numbers; no file is read for that.
# Of few rows a tenth is too little to tell noise from difficult pictures, so
# that three tenths are held out. Labels come from the items. With
# ``iterator_train__num_workers=2`` the files would be read in other processes.


class ConvNet(nn.Sequential):
    """A convolution on pictures of 8 x 8 pixels."""

    def __init__(self, channels=16, n_hidden=64):
        super().__init__(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * channels, n_hidden),
            nn.ReLU(),
        )


train, test = train_test_split(
    np.arange(len(rows)), train_size=450, random_state=0
)
classifier = NoisyLabelClassifier(
    ConvNet,
    lr=6e-3,
    batch_size=64,
    max_epochs=15,
    early_stopping=True,
    validation_fraction=0.3,
    random_state=0,
)
classifier.fit(rows[train])
print(f"clean test accuracy {classifier.score(rows[test], y[test]):.3f}")

# %%
# Which labels are wrong
# ----------------------
# Of the pictures that were not trained on, the worst first.

issues = find_label_issues(classifier, rows[test], rows[test].targets)
wrong = rows[test].targets != y[test]
share = wrong[issues.indices].mean()
print(f"{issues.count} labels are suspected; {share:.0%} of them are wrong")
print(f"{wrong.sum()} of {len(test)} are")
figure, axes = plt.subplots(2, 6, figsize=(7.2, 3.2), layout="constrained")
pictures = rows[test].inputs(issues.indices[: axes.size])
for rank, (panel, picture) in enumerate(zip(axes.flat, pictures, strict=True)):
    panel.imshow(picture[0], cmap="gray_r")
    panel.set_title(
        f"{issues.observed_labels[rank]} → {issues.suggested_labels[rank]}",
        fontsize="medium",
    )
    panel.set_axis_off()
figure.suptitle("The label of the folder → what it might be")
plt.show()
folder.cleanup()
