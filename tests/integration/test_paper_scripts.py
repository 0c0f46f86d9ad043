"""The scripts of the published figures, on a data set that scikit-learn brings."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from skorch.callbacks import Callback, EarlyStopping
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


# --- The public code ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def noisy_digits():
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    return X, corrupt_labels(y, pair_transition(10, 0.4), exact=True, random_state=0)


def stages_of(chain, X, y, **params):
    """Fit with the callbacks of a chain; return weights of each stage, at its start and end."""
    import protocol

    seen = []

    class Recorder(Callback):
        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) == 1:
                seen.append({"start": state(net), "epochs": []})

        def on_epoch_end(self, net, **kwargs):
            seen[-1]["epochs"].append(state(net))

        def on_train_end(self, net, **kwargs):
            seen[-1]["end"] = state(net)

    def state(net):
        return {name: tensor.clone() for name, tensor in net.network.state_dict().items()}

    link = protocol.CHAINS[chain]
    # The stopping ends the round of callbacks.
    callbacks = sorted(link.callbacks(), key=lambda callback: isinstance(callback, EarlyStopping))
    NoisyLabelClassifier(
        noise_model="c",
        hidden_layer_sizes=(20,),
        random_state=0,
        callbacks=[*callbacks[:-1], Recorder(), callbacks[-1]],
        **{"max_epochs": 3, "lr": 1e-2, **link.options, **params},
    ).fit(X, y)
    assert len(seen) == 3
    return seen


def same(state, other):
    return state.keys() == other.keys() and all(state[k].equal(other[k]) for k in state)


def test_stages_of_the_public_code_end_with_their_last_epoch(noisy_digits):
    # With a rate of learning at which later epochs are worse than earlier ones.
    params = {"lr": 0.1, "max_epochs": 12, "batch_size": 32}
    last = stages_of("code", *noisy_digits, **params)
    for stage in last:
        assert same(stage["end"], stage["epochs"][-1])
    best = stages_of("code-best-epoch", *noisy_digits, **params)
    assert any(not same(stage["end"], stage["epochs"][-1]) for stage in best)


def test_weights_begin_by_glorots_rule_and_without_biases(noisy_digits):
    start = stages_of("code", *noisy_digits)[0]["start"]
    for name, weight in start.items():
        if name.endswith("bias"):
            assert not weight.any()
        elif name.endswith("weight"):
            limit = (6 / sum(weight.shape)) ** 0.5
            assert 0.95 * limit < weight.abs().max() <= limit
    assert stages_of("code-torch-weights", *noisy_digits)[0]["start"]["head.bias"].any()


def test_variants_of_the_public_code_differ_in_the_start_they_name(noisy_digits):
    def starts(chain):
        stages = stages_of(chain, *noisy_digits)
        return [stages[k]["start"]["noise.bias"].softmax(dim=1) for k in (1, 2)], stages

    (s, c), stages = starts("code")
    # The same network before it: only the bias that is replaced may differ.
    (soft, _), of_soft = starts("code-soft")
    assert same(stages[0]["end"], of_soft[0]["end"])
    assert soft.diag().mean() < s.diag().mean()
    (held_out, _), _ = starts("code-held-out")
    assert not torch.allclose(held_out, s, atol=1e-3)
    (again, kept), of_kept = starts("code-kept-bias")
    assert torch.equal(again, s)
    torch.testing.assert_close(kept, of_kept[1]["end"]["noise.bias"].softmax(dim=1))
    assert not torch.allclose(kept, c, atol=1e-3)


def test_counts_of_the_callback_are_those_of_the_classifier(noisy_digits):
    import protocol
    from public_code import CountedStart

    class Spoilt(CountedStart):
        """Whatever the layer started from before."""

        def on_train_begin(self, net, **kwargs):
            super().on_train_begin(net, **kwargs)
            if self.waits_:
                net.network.noise.bias.data.zero_()

    usual = stages_of("code", *noisy_digits)
    code = protocol.CHAINS["code"]
    protocol.CHAINS["spoilt"] = code._replace(
        callbacks=lambda: [*code.callbacks()[:-1], Spoilt(), code.callbacks()[-1]]
    )
    try:
        counted = stages_of("spoilt", *noisy_digits)
    finally:
        del protocol.CHAINS["spoilt"]
    for stage, other in zip(usual[1:], counted[1:], strict=True):
        expected, found = (a["start"]["noise.bias"].softmax(dim=1) for a in (stage, other))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_stage_of_the_public_code_stops_after_five_epochs_without_gain(noisy_digits):
    import protocol

    link = protocol.CHAINS["code"]
    fitted = NoisyLabelClassifier(
        noise_model=None,
        hidden_layer_sizes=(50,),
        lr=0.03,
        max_epochs=40,
        random_state=0,
        callbacks=link.callbacks(),
        **link.options,
    ).fit(*noisy_digits)
    losses = fitted.history_[:, "valid_loss"]
    assert len(losses) < 40
    assert int(np.argmin(losses)) == len(losses) - 6


# --- What is drawn ------------------------------------------------------------------------------


def test_tables_hold_means_spreads_and_numbers_of_runs(tmp_path, monkeypatch):
    import draw_paper
    import protocol

    runs = [
        ("s-code", 0.4, 0, 0.95), ("s-code", 0.4, 1, 0.85), ("s-code", 0.46, 0, 0.7),
        ("c-code", 0.4, 0, 0.8), ("s", 0.4, 0, 0.96), ("s-code-soft", 0.4, 0, 0.6),
    ]  # fmt: skip
    rows = [
        {"data": "mnist", "size": 20, "level": x, "method": m, "seed": seed, "accuracy": a}
        | {"transition_error": 0.25}
        for m, x, seed, a in runs
    ]
    protocol._append(tmp_path / "mnist.csv", rows)
    monkeypatch.setattr(sys, "argv", ["draw", "--input", str(tmp_path), "--output", str(tmp_path)])
    draw_paper.main()
    table, differences, transition = (
        (tmp_path / f"mnist_{name}.rst").read_text()
        for name in ("table", "differences", "transition")
    )
    assert "* - s, public code\n     - 0.900 ± 0.050 (2)\n     - 0.700 (1)\n" in table
    assert "* - *s, published*" in table or "s, formula" not in table
    assert "* - the public code\n     - 0.900 ± 0.050 (2)\n     - 0.800 (1)\n" in differences
    assert "* - soft counts, as printed\n     - 0.600 (1)\n     -\n" in differences
    # Above .9 no digit is lost. A digit has 1,200 labels: (1 - 2 * .4) * sqrt(1200), all 12,000.
    runs, errors = ["1 of 2", "1 of 1", ""], ["0.250", "0.250", "6.9", "21.9"]
    cells = ["0.4", *runs[:1], "0 of 1", *runs[1:], "", *errors]
    assert "   * - " + "\n     - ".join(cells).replace("- \n", "-\n") + "\n" in transition
    assert (tmp_path / "mnist.png").stat().st_size > 0


def test_a_part_of_the_images_holds_those_that_two_seeds_draw(tmp_path, monkeypatch):
    import cifar100_part
    import protocol

    labels = np.tile(np.arange(100), 60)
    whole = protocol.Images(np.arange(6000), labels, np.arange(6000), labels)
    monkeypatch.setattr(cifar100_part, "load", lambda folder: whole)
    monkeypatch.setattr(cifar100_part, "N_TRAIN", 1200)
    monkeypatch.setattr(cifar100_part, "PARTS", {})
    part = cifar100_part.load_part(tmp_path)
    assert 1200 < len(part.X) < 2400
    np.testing.assert_array_equal(np.bincount(part.y_test), np.full(100, 50))
    for seed in (0, 1):
        drawn, expected = (
            cifar100_part.subset_of_part(part, 20, seed),
            protocol.subset(whole, 20, seed),
        )
        np.testing.assert_array_equal(drawn.X, expected.X)
        np.testing.assert_array_equal(drawn.y, expected.y)
    other = cifar100_part.subset_of_part(part, 20, 2)
    assert len(other.X) == 1200
    assert set(other.X) <= set(part.X)
    with pytest.raises(SystemExit, match="a fifth"):
        cifar100_part.subset_of_part(part, 50, 0)
