"""Ctrl-C in fit, where the best weights so far are to be kept."""

import sys
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.callback import ProgressBar as ProgressTree
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, TrainEndCheckpoint
from torch import nn

from sknoisy import NoisyLabelClassifier, load_model, save_model
from sknoisy.noise import corrupt_labels, uniform_transition

X, y = make_classification(
    600, 8, n_informative=6, n_classes=3, n_clusters_per_class=1, random_state=0
)
noisy = corrupt_labels(y, uniform_transition(3, 0.4), random_state=0)
SOURCE = NoisyLabelClassifier.__module__.split(".")[0]


class CtrlC(Callback):
    """Raise KeyboardInterrupt in an epoch of a stage, as if it came from the keyboard."""

    def __init__(self, stage, epoch, event="on_epoch_end"):
        self.stage = stage
        self.epoch = epoch
        self.event = event

    def _press(self, net, event):
        if event == self.event and len(net.history) == self.epoch:
            row = net.history[-1]
            if row.get("stage", self.stage) == self.stage:
                raise KeyboardInterrupt

    def on_epoch_end(self, net, **kwargs):
        self._press(net, "on_epoch_end")

    def on_batch_end(self, net, training=None, **kwargs):
        if training:
            self._press(net, "on_batch_end")


def interrupted(stage, epoch, event="on_batch_end", **params):
    params = {"max_epochs": 8, "lr": 0.01, "random_state": 0, "on_interrupt": "keep"} | params
    return NoisyLabelClassifier(callbacks=[CtrlC(stage, epoch, event)], **params)


def fit(classifier, match="The fit is not complete", labels=y):
    with pytest.warns(ConvergenceWarning, match=match) as record:
        classifier.fit(X, labels)
    assert record[0].filename == __file__
    return classifier


@pytest.mark.parametrize(
    ("params", "stage"),
    [
        ({"noise_model": None}, "baseline"),
        ({"noise_model": None, "early_stopping": True}, "baseline"),
        ({}, "s"),
        ({"early_stopping": True, "max_epochs": 20}, "s"),
        ({"noise_model": "c"}, "c"),
        ({"noise_model": "c", "early_stopping": True}, "c"),
        ({"method": "em"}, "em"),
        ({"method": "em", "early_stopping": True}, "em"),
        ({"transition_init": "confusion"}, "s"),
        ({"dropout": 0.2}, "s"),
    ],
    ids=str,
)
def test_the_weights_before_are_kept_and_predict(params, stage, tmp_path):
    classifier = fit(
        interrupted(stage, 4, **params),
        rf"in epoch \d+ \(stage '{stage}'\), and the weights of epoch \d+ .* are kept",
    )
    assert classifier.history_[-1]["stage"] == stage
    assert all(np.isfinite(row["train_loss"]) for row in classifier.history_)
    assert classifier.n_iter_ == len(classifier.history_) == classifier.history_[-1]["epoch"]
    assert classifier.score(X, y) > 0.6
    assert_allclose(classifier.predict_noisy_proba(X).sum(axis=1), 1)
    assert_allclose(classifier.transition_matrix_.sum(axis=1), 1)
    save_model(classifier.set_params(callbacks=None), tmp_path / "model")
    assert_array_equal(load_model(tmp_path / "model").predict_proba(X), classifier.predict_proba(X))


@pytest.mark.parametrize("stage", ["baseline", "s"])
def test_without_held_out_rows_the_last_epoch_that_is_over_is_kept(stage):
    params = {"noise_model": None if stage == "baseline" else "s", "early_stopping": False}
    params |= {"transition_init": np.eye(3) * 0.7 + 0.1, "transition_prior": 0.0}
    if stage == "baseline":
        del params["transition_init"]
    kept = fit(interrupted(stage, 4, **params))
    assert kept.history_[-1]["epoch"] == len(kept.history_)


def test_with_held_out_rows_the_baseline_is_kept_until_joint_training_is_as_good():
    """Here it begins from new weights."""
    params = {"early_stopping": True, "max_epochs": 80, "lr": 1e-3, "validation_fraction": 0.3}
    params["transition_init"] = uniform_transition(3, 0.3)  # one start, one joint training
    params["select_noise_model"] = False  # that no other rows judge
    whole = interrupted("none", 0, **params).fit(X, noisy)
    last = whole.history_[:, "stage"].count("s")
    assert last > 9
    kept = fit(interrupted("s", 2, **params), "stage 'baseline'", noisy)
    assert kept.net_.network.noise is None
    assert_array_equal(kept.transition_matrix_, np.eye(3))
    late = fit(interrupted("s", last, **params), r"\(stage 's'\) are kept", noisy)
    assert late.noise_rate_ > 0.2
    assert log_loss(y, late.predict_proba(X)) < log_loss(y, kept.predict_proba(X))


def test_with_held_out_rows_the_best_epoch_of_joint_training_is_kept():
    params = {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 20}
    params["transition_init"] = uniform_transition(3, 0.3)  # all epochs belong to one training
    late = fit(interrupted("s", 8, **params), "stage 's'", noisy)
    best = min(
        (row for row in late.history_ if row["stage"] == "s"), key=lambda row: row["valid_loss"]
    )
    with pytest.warns(ConvergenceWarning, match=rf"weights of epoch {best['epoch']} "):
        again = clone(late).fit(X, noisy)
    assert_array_equal(again.predict_proba(X), late.predict_proba(X))


@pytest.mark.parametrize("on_interrupt", ["raise", "keep"])
@pytest.mark.parametrize("early_stopping", [True, False])
def test_before_the_first_epoch_is_over_nothing_is_kept(early_stopping, on_interrupt):
    params = {"early_stopping": early_stopping, "on_interrupt": on_interrupt}
    classifier = interrupted("baseline", 1, **params)
    with pytest.raises(KeyboardInterrupt):
        classifier.fit(X, y)
    assert set(vars(classifier)) == set(classifier.get_params())


def test_by_default_it_is_raised_and_the_last_fit_stays():
    classifier = interrupted("s", 3, on_interrupt="raise").set_params(callbacks=None).fit(X, y)
    before = classifier.predict_proba(X)
    with pytest.raises(KeyboardInterrupt):
        classifier.set_params(callbacks=[CtrlC("s", 3)]).fit(X, y)
    assert NoisyLabelClassifier().on_interrupt == "raise"
    assert_array_equal(classifier.predict_proba(X), before)


def test_a_pass_of_a_stream_is_all_or_nothing():
    classifier = interrupted("none", 0).partial_fit(X, y, classes=range(3))
    before = classifier.predict_proba(X)
    with pytest.raises(KeyboardInterrupt):
        classifier.set_params(callbacks=[CtrlC("baseline", 1)], lr=0.02).partial_fit(X, y)
    assert_array_equal(classifier.predict_proba(X), before)


def test_a_fit_that_is_not_interrupted_is_the_same():
    for early_stopping in (True, False):
        params = {"max_epochs": 4, "random_state": 0, "early_stopping": early_stopping}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            kept = NoisyLabelClassifier(on_interrupt="keep", **params).fit(X, y)
        expected = NoisyLabelClassifier(**params).fit(X, y)
        assert_array_equal(kept.predict_noisy_proba(X), expected.predict_noisy_proba(X))
        assert len(kept.history_) == len(expected.history_)


@pytest.mark.parametrize("share", np.linspace(0.05, 1.0, 12).round(2))
@pytest.mark.parametrize("early_stopping", [True, False])
def test_at_any_line_it_is_raised_or_leaves_a_model(early_stopping, share):
    """Wherever it comes: in a step, between stages, while the start is looked for, at the end."""

    def run(after):
        lines = 0

        def count(frame, event, arg):
            nonlocal lines
            lines += event == "line"
            if lines == after:
                lines += 1
                raise KeyboardInterrupt
            return count

        def enter(frame, event, arg):
            return count if SOURCE in frame.f_code.co_filename else None

        params = {"early_stopping": early_stopping, "noise_model": "c", "on_interrupt": "keep"}
        classifier = NoisyLabelClassifier(max_epochs=3, random_state=0, **params)
        traced = sys.gettrace()
        sys.settrace(enter)
        try:
            classifier.fit(X, y)
        finally:
            sys.settrace(traced)
        return classifier, lines

    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        try:
            classifier, _ = run(int(share * run(-1)[1]))
        except KeyboardInterrupt:
            assert not record
        else:
            assert np.isfinite(classifier.predict_noisy_proba(X)).all()
            assert classifier.n_iter_ == len(classifier.history_)
            assert record or share == 1.0
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_callbacks_hear_of_the_end(tmp_path, capsys):
    classifier = interrupted("s", 3)
    classifier.callbacks.append(TrainEndCheckpoint(dirname=str(tmp_path)))
    classifier.set_callbacks(ProgressTree())
    fit(classifier)
    saved = torch.load(tmp_path / "train_end_params.pt", weights_only=True)
    for name, value in classifier.net_.network.state_dict().items():
        assert torch.equal(saved[name], value)


def test_a_module_of_the_users_in_a_pipeline_goes_on_from_there():
    module = nn.Sequential(nn.Linear(8, 20), nn.BatchNorm1d(20), nn.ReLU())
    pipeline = make_pipeline(StandardScaler(), interrupted("s", 3, module=module))
    with pytest.warns(ConvergenceWarning, match="not complete"):
        pipeline.fit(X, y)
    before = pipeline[-1].n_iter_
    pipeline[-1].set_params(callbacks=None, warm_start=True)
    assert pipeline.fit(X, y)[-1].n_iter_ > before


@pytest.mark.parametrize("value", ["ignore", None, True])
def test_other_ways_are_refused(value):
    with pytest.raises(ValueError, match="The 'on_interrupt' parameter"):
        NoisyLabelClassifier(on_interrupt=value).fit(X, y)
