"""
The published figure for CIFAR-100, from a part of the images
=============================================================

What most of ``cifar100.csv`` was made from, on a GPU that was lent for minutes: only some images
could be taken there. They are the training images that seeds 0 and 1 draw for a fifth of the data,
18,035 of 50,000, and the first 50 test images of each class. Seeds 0 and 1 train on the images that
``cifar100.py`` gives them, other seeds on 10,000 of those that are there, stratified by class::

    python examples/paper/cifar100_part.py --sizes 20 --levels .30 --device cuda --data FOLDER
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cifar100 import FIGURE, N_CLASSES, load
from protocol import Images, main, subset
from sklearn.model_selection import train_test_split

SIZE = 20.0
SEEDS = 0, 1
TEST_IMAGES_OF_A_CLASS = 50
N_TRAIN = 10_000


def part_of(images: Images) -> Images:
    """Return the images that are there, in their order."""
    position = images._replace(X=np.arange(len(images.X)))
    kept = np.unique(np.concatenate([subset(position, SIZE, seed).X for seed in SEEDS]))
    first = [
        np.flatnonzero(images.y_test == label)[:TEST_IMAGES_OF_A_CLASS]
        for label in range(N_CLASSES)
    ]
    test = np.sort(np.concatenate(first))
    return Images(images.X[kept], images.y[kept], images.X_test[test], images.y_test[test])


def load_part(folder: Path | None) -> Images:
    """Return the part, with the positions in the whole training set for `subset_of_part`."""
    images = load(folder)
    PARTS[0] = images._replace(X=np.arange(len(images.X)))
    return part_of(images)


#: The whole training set, with positions in the place of images.
PARTS: dict[int, Images] = {}


def subset_of_part(images: Images, size: float, seed: int) -> Images:
    """Keep 10,000 training images: those of the seed, or some of the part."""
    if size != SIZE:
        raise SystemExit(f"Only a fifth of the data is there; got --sizes {size:g}.")
    if seed in SEEDS:
        whole = PARTS[0]
        there = np.unique(np.concatenate([subset(whole, SIZE, s).X for s in SEEDS]))
        kept = np.searchsorted(there, subset(whole, SIZE, seed).X)
    else:
        kept, _ = train_test_split(
            np.arange(len(images.X)), train_size=N_TRAIN, stratify=images.y, random_state=seed
        )
        kept.sort()
    return images._replace(X=images.X[kept], y=images.y[kept])


if __name__ == "__main__":
    main(FIGURE._replace(load=load_part, subset=subset_of_part), __doc__.split("\n\n")[1])
