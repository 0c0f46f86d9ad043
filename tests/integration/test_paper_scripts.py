"""The scripts of the published figures, on a data set that scikit-learn brings."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from sknoisy import NoisyLabelClassifier
from sknoisy.noise import corrupt_labels, pair_transition

SCRIPTS = Path(__file__).parents[2] / "examples" / "paper"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)


@pytest.fixture
def figure():
    import protocol

    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    return protocol.Figure(
        name="digits",
        load=lambda folder: protocol.Images(X[:1200], y[:1200], X[1200:], y[1200:]),
        transition=lambda level, seed: pair_transition(10, level),
        options={"hidden_layer_sizes": (20,), "lr": 5e-3, "early_stopping": True},
        network=lambda: nn.Sequential(nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10)),
        levels=[0.3],
        chains=["formula", "reed-hard"],
        quick_size=50.0,
    )


def rows_of(path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def run(figure, path, monkeypatch, *options):
    import protocol

    monkeypatch.setattr(sys, "argv", ["script", "--output", str(path), "--seeds", "0", *options])
    protocol.main(figure, "")
    return rows_of(path)


def test_stages_of_one_training_are_what_separate_fits_give(figure):
    import protocol

    chain = protocol.CHAINS["formula"]
    images = figure.load(None)
    true = figure.transition(0.3, 0)
    observed = corrupt_labels(images.y, true, exact=True, random_state=0)
    shared = protocol.run_chain(
        figure, chain, observed, images, true, seed=0, device="cpu", max_epochs=6
    )
    options = {**figure.options, **chain.options}
    separate = [
        NoisyLabelClassifier(noise_model=model, max_epochs=6, random_state=0, **options).fit(
            images.X, observed
        )
        for model in (None, "s", "c")
    ]
    shared = list(shared)
    assert [row["method"] for row in shared] == ["baseline", "s-formula", "c-formula"]
    for row, fitted in zip(shared, separate, strict=True):
        assert row["accuracy"] == round(fitted.score(images.X_test, images.y_test), 5)
        assert row["epochs"] == fitted.n_iter_


def test_a_table_cut_short_is_completed_to_the_same_table(figure, tmp_path, monkeypatch):
    whole = run(figure, tmp_path / "whole.csv", monkeypatch, "--sizes", "50")
    assert len(whole) == 4
    lines = (tmp_path / "whole.csv").read_text().splitlines(keepends=True)
    cut = tmp_path / "cut.csv"
    cut.write_text("".join([lines[0], lines[2]]))
    completed = run(figure, cut, monkeypatch, "--sizes", "50")
    assert sorted(completed, key=str) == sorted(whole, key=str)


@pytest.mark.parametrize("hard", [False, True])
def test_bootstrapping_trusts_labels_by_beta(hard):
    from reed import BootstrapLoss

    logits = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 2, 1, 1, 0])
    proba = logits.softmax(dim=1)
    prediction = torch.eye(3, dtype=torch.float64)[proba.argmax(dim=1)] if hard else proba
    mixture = 0.8 * torch.eye(3, dtype=torch.float64)[target] + 0.2 * prediction
    expected = -(mixture * proba.log()).sum(dim=1).mean()
    torch.testing.assert_close(BootstrapLoss(0.8, hard)(logits, target), expected)
    torch.testing.assert_close(
        BootstrapLoss(1.0, hard)(logits, target), nn.functional.cross_entropy(logits, target)
    )


def test_images_come_back_from_their_differences():
    from cifar100 import undelta

    images = np.random.RandomState(0).randint(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    stored = images.copy()
    stored[:, :, 1:] -= images[:, :, :-1]
    stored[:, 1:] -= stored.copy()[:, :-1]
    stored[..., 0] -= stored[..., 1]
    stored[..., 2] -= stored[..., 1]
    np.testing.assert_array_equal(undelta(stored), images)


@pytest.mark.parametrize("seed", range(3))
def test_the_classes_of_cifar_move_and_none_stays(seed):
    from cifar100 import transition

    matrix = transition(0.46, seed)
    np.testing.assert_allclose(np.diag(matrix), 0.54)
    np.testing.assert_allclose(matrix.sum(axis=0), 1)
    assert sorted(set(matrix[matrix > 0].round(2))) == [0.46, 0.54]
