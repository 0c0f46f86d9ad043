"""
The published figure for CIFAR-100
==================================

Clean test accuracy of a small convolutional network on raw images, without augmentation, when a
random permutation of the hundred classes has changed a share of the labels (Goldberger and
Ben-Reuven, ICLR 2017): the baseline, hard bootstrapping, the s-model and the c-model by the
formula as printed, by the public code and with the defaults of this package, and all of them with a
sparse noise layer that keeps the five likeliest observed classes of each true class::

    python examples/paper/cifar100.py --quick --data FOLDER
    python examples/paper/cifar100.py --sizes 20 --levels .30 .46 --data FOLDER
    python examples/paper/cifar100.py --sizes 20 50 100 --device cuda --data FOLDER

Every finished run is a row of ``cifar100.csv``; a script that was stopped goes on where it
stopped. ``draw_paper.py`` draws it. ``FOLDER`` holds ``cifar-100-python.tar.gz``, unpacked, as it
comes from https://www.cs.toronto.edu/~kriz/cifar.html (the folder ``cifar-100-python``), or
``cifar100_train.npz`` and ``cifar100_test.npz`` with the images as differences (see `undelta`).

The convolutions are 3x3; the first of each pair keeps the size of the image, the second does not.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
from protocol import Figure, Images, main
from torch import Tensor, nn

from sknoisy.noise import permutation_transition

N_CLASSES = 100


def undelta(differences: np.ndarray) -> np.ndarray:
    """Return pixels from their differences along rows, columns and to the green channel."""
    pixels = differences.copy()
    pixels[..., 0] += pixels[..., 1]
    pixels[..., 2] += pixels[..., 1]
    return np.cumsum(np.cumsum(pixels, axis=1, dtype=np.uint8), axis=2, dtype=np.uint8)


def load(folder: Path | None) -> Images:
    """Return CIFAR-100 as bytes of shape (n, 32, 32, 3), with the fine labels."""
    if folder is None:
        raise SystemExit(
            "CIFAR-100 needs --data FOLDER: unpack cifar-100-python.tar.gz from "
            "https://www.cs.toronto.edu/~kriz/cifar.html there."
        )
    parts: list[np.ndarray] = []
    for part in ("train", "test"):
        if (folder / "cifar-100-python").is_dir():
            with (folder / "cifar-100-python" / part).open("rb") as file:
                stored = pickle.load(file, encoding="bytes")
            X = stored[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            parts += [np.ascontiguousarray(X), np.array(stored[b"fine_labels"])]
        else:
            with np.load(folder / f"cifar100_{part}.npz") as stored:
                parts += [undelta(stored["x_delta"]), stored["y"].astype(int)]
    return Images(*parts)


class ConvNet(nn.Module):
    """conv32-conv32-pool-dropout-conv64-conv64-pool-dropout-dense512-dropout."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in ((3, 32), (32, 64)):
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU()]
            layers += [nn.Conv2d(n_out, n_out, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25)]
        layers += [nn.Flatten(), nn.Linear(64 * 6 * 6, 512), nn.ReLU(), nn.Dropout(0.5)]
        self.layers = nn.Sequential(*layers)

    def forward(self, X: Tensor) -> Tensor:
        """Map bytes of shape (n, 32, 32, 3) to (n, 512)."""
        return self.layers(X.movedim(-1, 1) / 255)


def transition(level: float, seed: int) -> np.ndarray:
    """Return the matrix of a random permutation of the classes without a fixed point."""
    random = np.random.RandomState(seed)
    permutation = random.permutation(N_CLASSES)
    while (permutation == np.arange(N_CLASSES)).any():
        permutation = random.permutation(N_CLASSES)
    return permutation_transition(permutation, level)


def network() -> nn.Module:
    """Return the network with its softmax layer, for bootstrapping."""
    return nn.Sequential(ConvNet(), nn.Linear(512, N_CLASSES))


FIGURE = Figure(
    name="cifar100",
    load=load,
    transition=transition,
    options={"module": ConvNet, "batch_size": 256},
    network=network,
    levels=[0.30, 0.36, 0.40, 0.44, 0.46, 0.50],
    chains=[
        "formula",
        "code",
        "ours",
        "ours-c",
        "reed-hard",
        "sparse-formula",
        "sparse-code",
        "sparse",
        "sparse-c",
    ],
    quick_size=4.0,
    variants=[
        "known",
        "known-patient",
        "known-glorot",
        "patient",
        "glorot",
        "glorot-c",
        "glorot-patient",
        "code-best-epoch",
        "code-torch-weights",
        "code-calibrated-stop",
        "formula-hard",
    ],
)

if __name__ == "__main__":
    main(FIGURE, __doc__.split("\n\n")[1])
