"""
What a fit to a data set costs, and what augmentation gains
===========================================================

Pictures of 32 x 32 pixels in PNG files, read by a data set of torch: memory of a fit over what the
imports take, and its time over that of a hand-written loop over the same ``DataLoader`` that goes
over the rows as often (needs Pillow)::

    OMP_NUM_THREADS=1 python tests/benchmarks/file_fits.py --files 20000
    OMP_NUM_THREADS=1 python tests/benchmarks/file_fits.py --files 5000 --workers 0 --clock process

Passes that only evaluate count as passes of the loop without gradients. The same network, with and
without augmentation, on digits of which 35 % are labelled wrongly, mean and standard deviation of
three seeds::

    OMP_NUM_THREADS=1 python tests/benchmarks/file_fits.py --augmentation
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, Dataset

from sknoisy import IndexableDataset, NoisyLabelClassifier
from sknoisy.noise import corrupt_labels, pair_transition

BATCH_SIZE = 256
CLOCKS = {"wall": time.perf_counter, "process": time.process_time}


class Files(Dataset):
    """Pictures in files, and how often one was read."""

    def __init__(self, paths: list[Path], labels: np.ndarray) -> None:
        self.paths, self.targets, self.n_read = paths, labels, 0

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        self.n_read += 1
        with Image.open(self.paths[i]) as file:
            picture = torch.from_numpy(np.array(file)).permute(2, 0, 1)
        return picture.float() / 255, int(self.targets[i])


class ConvNet(nn.Sequential):
    """Two convolutions on colour pictures of 32 x 32 pixels."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
        )


def write_files(folder: str, n_files: int) -> tuple[list[Path], np.ndarray]:
    """Write pictures of ten classes, a colour and a place each, and return paths and labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(10, size=n_files)
    colours = rng.integers(40, 216, size=(10, 3))
    paths = [Path(folder, f"{number:06}.png") for number in range(n_files)]
    for path, label in zip(paths, labels, strict=True):
        picture = rng.integers(0, 255, size=(32, 32, 3))
        corner = 3 * label
        picture[corner : corner + 5] = 0.5 * picture[corner : corner + 5] + 0.5 * colours[label]
        Image.fromarray(picture.astype("uint8")).save(path)
    return paths, corrupt_labels(labels, pair_transition(10, 0.3), random_state=0)


def loop(data: Files, n_passes: int, n_evaluations: float, workers: int) -> None:
    """Train a network for so many passes, and evaluate it for so many."""
    network = nn.Sequential(ConvNet(), nn.Linear(512, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    loader = DataLoader(data, batch_size=BATCH_SIZE, shuffle=True, num_workers=workers)
    for _ in range(n_passes):
        for X, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(X), y).backward()
            optimizer.step()
    n_batches = round(n_evaluations * len(loader))
    with torch.no_grad():
        while n_batches > 0:
            for X, _ in loader:
                network(X)
                n_batches -= 1
                if n_batches <= 0:
                    break


def memory() -> float:
    """Return the largest memory of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_files(arguments: argparse.Namespace) -> None:
    """Print memory and time of a fit to files, and the time of the loop."""
    clock = CLOCKS[arguments.clock]
    with tempfile.TemporaryDirectory() as folder:
        paths, labels = write_files(folder, arguments.files)
        data, at_first = Files(paths, labels), memory()
        classifier = NoisyLabelClassifier(
            ConvNet,
            batch_size=BATCH_SIZE,
            early_stopping=True,
            max_epochs=arguments.epochs,
            iterator_train__num_workers=arguments.workers,
            random_state=0,
        )
        start = clock()
        classifier.fit(IndexableDataset(data), labels)
        seconds, most = clock() - start, memory() - at_first
        n_train = len(data) - round(0.1 * len(data))
        passes = classifier.n_iter_ * n_train / len(data)
        evaluations = data.n_read / len(data) - passes if arguments.workers == 0 else np.nan
        print(
            f"{len(data)} files, {arguments.workers} workers: {most:.0f} MB over import, "
            f"{seconds:.1f} s for {passes:.1f} passes to train"
        )
        if arguments.workers == 0:
            start = clock()
            loop(data, round(passes), evaluations + passes - round(passes), 0)
            of_loop = clock() - start
            print(
                f"loop over the same loader, with {evaluations:.1f} passes to evaluate: "
                f"{of_loop:.1f} s; ratio {seconds / of_loop:.3f}"
            )


class Shifted(Dataset):
    """Digits, moved by up to a pixel each time."""

    def __init__(self, images: torch.Tensor, moves: bool) -> None:
        self.images, self.moves = images, moves

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> torch.Tensor:
        image = self.images[i]
        if not self.moves:
            return image
        down, right = torch.randint(3, (2,)).tolist()
        return nn.functional.pad(image, (1, 1, 1, 1))[:, down : down + 8, right : right + 8]


def small_network() -> nn.Module:
    """Return a convolution and a hidden layer for digits."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.ReLU(),
    )


def measure_augmentation(arguments: argparse.Namespace) -> None:
    """Print accuracies with and without augmentation."""
    digits = load_digits()
    images = torch.tensor(digits.images[:, None] / 16).float()
    plain, moved = Shifted(images, False), Shifted(images, True)
    ways: list[tuple[str, dict[str, Any]]] = [
        ("plain, all epochs", {"noise_model": None, "early_stopping": False, "max_epochs": 60}),
        ("plain, stopped early", {"noise_model": None, "early_stopping": True}),
        ("s-model", {"noise_model": "s", "early_stopping": True}),
    ]
    for name, params in ways:
        scores: dict[bool, list[float]] = {False: [], True: []}
        for seed in range(3):
            train, test = train_test_split(
                np.arange(len(images)), test_size=0.3, stratify=digits.target, random_state=seed
            )
            y = corrupt_labels(
                digits.target, pair_transition(10, 0.35), exact=True, random_state=seed
            )
            for moves in scores:
                rows = IndexableDataset(moved if moves else plain, evaluation=plain)
                classifier = NoisyLabelClassifier(
                    small_network, lr=3e-3, batch_size=64, random_state=seed, **params
                ).fit(rows[train], y[train])
                scores[moves].append(classifier.score(rows[test], digits.target[test]))
        print(
            f"{name:22}"
            + "".join(
                f"{'augmented' if moves else 'as it is':>12} {np.mean(of):.3f} +- {np.std(of):.3f}"
                for moves, of in scores.items()
            ),
            flush=True,
        )


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--augmentation", action="store_true")
    arguments = parser.parse_args()
    (measure_augmentation if arguments.augmentation else measure_files)(arguments)


if __name__ == "__main__":
    main()
