"""Callbacks in several processes: one logs and saves for all, and decides for all."""

import contextlib
import io
import os

import numpy as np
import torch
import torch.distributed as dist
from fits import N, arguments_of, part_of, rows, said
from sklearn.callback import ProgressBar
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    LRScheduler,
    PrintLog,
)

from sknoisy import NoisyLabelClassifier, split_predictions

PARAMS = {"hidden_layer_sizes": (6,), "random_state": 0, "batch_size": 16, "noise_model": None}
HELD_OUT = {"early_stopping": True, "validation_fraction": 0.3}


def fit_with(rank, params, bounds=None):
    """Fit; return what was printed, and what was learned."""
    args, _ = arguments_of("plain", part_of(rank, bounds))
    distributed = "auto" if bounds is None else "sharded"
    classifier = NoisyLabelClassifier(distributed=distributed, **PARAMS | params)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        classifier.fit(*args)
    return said(classifier, rows()[0], printed=printed.getvalue())


def check_same(outcomes):
    for outcome in outcomes:
        assert outcome["weights"] == outcomes[0]["weights"]
        assert outcome["history"] == outcomes[0]["history"]


def test_the_table_is_printed_once(two):
    outcomes = two.run(fit_with, {"verbose": 1, "max_epochs": 2, **HELD_OUT})
    check_same(outcomes)
    assert "train_loss" in outcomes[0]["printed"]
    assert outcomes[1]["printed"] == ""


def test_checkpoints_are_saved_once_and_loaded_by_all(two, tmp_path):
    saving = Checkpoint(dirname=str(tmp_path), monitor="train_loss_best", load_best=True)
    outcomes = two.run(fit_with, {"callbacks": [saving], "max_epochs": 2, **HELD_OUT})
    check_same(outcomes)
    assert "params.pt" in os.listdir(tmp_path)


class OnlyIn(Callback):
    """Stop, halve the rate, and note something, in one process only."""

    def __init__(self, rank):
        self.rank = rank

    def on_epoch_end(self, net, **kwargs):
        if dist.get_rank() != self.rank:
            return
        net.history.record("noted", self.rank)
        for group in net.optimizer_.param_groups:
            group["lr"] /= 2


class StopsIn(EarlyStopping):
    """skorch's early stopping, with another patience in each process."""

    def initialize(self):
        self.patience = 2 + 2 * dist.get_rank()
        return super().initialize()


def test_rates_notes_and_stops_are_those_of_the_first_process(two):
    for rank in range(2):
        outcomes = two.run(fit_with, {"callbacks": [OnlyIn(rank)], "max_epochs": 3, **HELD_OUT})
        check_same(outcomes)
        assert ("noted" in outcomes[1]["history"][0]) == (rank == 0)
    stops = StopsIn(monitor="train_loss", threshold=10.0, threshold_mode="abs")
    outcomes = two.run(fit_with, {"callbacks": [stops], "max_epochs": 9, **HELD_OUT})
    check_same(outcomes)
    assert outcomes[0]["n_iter"] == 3


def test_scores_of_held_out_rows_are_those_of_one_process(two):
    """Callbacks that want to hear of batches have all held-out ones in each process."""
    params = {
        "callbacks": [EpochScoring("accuracy", name="right"), LRScheduler("StepLR", step_size=1)]
    }
    params |= {"max_epochs": 2, **HELD_OUT}
    outcomes = two.run(fit_with, params)
    check_same(outcomes)
    one = fit_with(0, params | {"batch_size": 32})
    for mine, expected in zip(outcomes[0]["history"], one["history"], strict=True):
        assert abs(mine["right"] - expected["right"]) < 0.02
        assert abs(mine["valid_loss"] - expected["valid_loss"]) < 1e-6
    np.testing.assert_allclose(outcomes[0]["proba"], one["proba"], atol=1e-4)
    check_same(two.run(fit_with, params, [0, 70, N]))


class BatchLog(PrintLog):
    """A logger, which is in the first process only, that wants to hear of batches."""

    def on_batch_end(self, net, training=None, **kwargs):
        self.n_batches = getattr(self, "n_batches", 0) + 1

    def on_train_end(self, net, **kwargs):
        net.history.record("n_batches", self.n_batches)


class Rows(Callback):
    """Note how many rows there are, and that labels belong to them."""

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        assert len(X) == len(y)

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        for dataset in (dataset_train, dataset_valid):
            assert len(dataset.X) == len(dataset.y) == len(dataset)
        net.history.record("rows", len(dataset_train) + len(dataset_valid))


def test_a_logger_of_the_first_process_may_hear_of_batches(two):
    params = {"callbacks": [BatchLog()], "max_epochs": 2, **HELD_OUT}
    outcomes = two.run(fit_with, params)
    check_same(outcomes)
    assert outcomes[0]["history"][-1]["n_batches"] == 2 * (6 + 1)
    check_same(two.run(fit_with, params, [0, 70, N]))


def test_callbacks_see_the_rows_that_a_process_holds(two):
    params = {"callbacks": [Rows()], "max_epochs": 1, **HELD_OUT}
    for bounds, n_rows in ((None, N), ([0, 70, N], 70)):
        outcomes = two.run(fit_with, params, bounds)
        check_same(outcomes)
        assert outcomes[0]["history"][0]["rows"] == n_rows


def fit_with_progress(rank):
    """scikit-learn's callbacks are told in one process only."""
    printed = io.StringIO()
    classifier = NoisyLabelClassifier(max_epochs=2, **PARAMS).set_callbacks(ProgressBar())
    with contextlib.redirect_stdout(printed):
        classifier.fit(*arguments_of("plain", slice(None))[0])
    return printed.getvalue()


def test_progress_is_shown_once(two):
    first, second = two.run(fit_with_progress)
    assert "NoisyLabelClassifier" in first
    assert second == ""


def predictions(rank, split):
    """Return predictions, and how many rows the network saw for them."""
    classifier = NoisyLabelClassifier(
        hidden_layer_sizes=(6,), max_epochs=2, distributed=False, random_state=0
    )
    (X, noisy), _ = arguments_of("plain", slice(None))
    classifier.fit(X, noisy)
    seen = []
    classifier.net_.network.register_forward_pre_hook(lambda module, inputs: seen.append(0))
    head = classifier.net_.network.head
    head.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    with split_predictions() if split else contextlib.nullcontext():
        found = [
            classifier.predict(X),
            classifier.predict_proba(X),
            classifier.predict_proba(X[:1]),
            classifier.predict_noisy_proba(X),
            classifier.predict_transition(X),
            classifier.label_posterior(X, noisy),
            classifier.score(X, noisy),
        ]
    return found, sum(seen)


def test_predictions_are_split_where_that_is_asked_for(two):
    split, whole = two.run(predictions, True), predictions(0, False)
    for found, _ in split:
        for mine, expected in zip(found, whole[0], strict=True):
            np.testing.assert_allclose(mine, expected, atol=1e-12)
    assert sum(n_rows for _, n_rows in split) == whole[1]
    alone, *_ = two.outcomes(predictions, False, ranks=[0])
    assert alone[0]


def cross_validate(rank):
    """Folds of scikit-learn, each fit of which is in both processes."""
    from sknoisy.inspection import find_label_issues

    (X, noisy), _ = arguments_of("plain", slice(None))
    classifier = NoisyLabelClassifier(hidden_layer_sizes=(6,), max_epochs=2, random_state=0)
    with split_predictions():
        found = find_label_issues(classifier, X, noisy, cv=2)
    return np.asarray(found.quality if hasattr(found, "quality") else list(found))


def test_inspection_is_the_same_in_all_processes(two):
    first, second = two.run(cross_validate)
    np.testing.assert_array_equal(first, second)


def test_torch_is_as_it_was(two):
    assert two.run(state_of_torch) == [(True, 1)] * 2


def state_of_torch(rank):
    before = torch.get_rng_state()
    fit_with(rank, {"max_epochs": 1, "dropout": 0.5})
    return torch.equal(before, torch.get_rng_state()), dist.get_world_size() - 1
