"""Interrupts, errors and full disks: what the caller has stays whole, and a later fit works."""

import copy
import os
import pickle
import sys
import traceback
import warnings
from functools import cache, partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback, EarlyStopping
from threadpoolctl import threadpool_info
from torch import nn

import sknoisy
from sknoisy import NoisyLabelClassifier
from sknoisy.noise import corrupt_labels, uniform_transition

SOURCES = os.path.dirname(sknoisy.__file__)
METHODS = {
    "plain": {"noise_model": None},
    "s": {},
    "c": {"noise_model": "c"},
    "em": {"method": "em", "max_em_iter": 2},
    "held out": {"early_stopping": True},
    "cluster": {"transition_init": "cluster"},
    "warm": {"warm_start": True},
    "stream": {},
}
every_method = pytest.mark.parametrize("method", METHODS)


@cache
def blobs():
    X, y = make_blobs(80, centers=2, random_state=0)
    return X, corrupt_labels(y, uniform_transition(2, 0.2), random_state=0)


def classifier(method="s", **params):
    params = {"hidden_layer_sizes": (4,), "max_epochs": 2} | METHODS[method] | params
    return NoisyLabelClassifier(**{"random_state": 0} | params)


def fitted(method="s", **params):
    """Return a classifier that has learned something else before, as the fault will find it."""
    before = classifier(method, **params)
    X, y = blobs()
    if method == "stream":
        for rows in (slice(0, 40), slice(40, 80)):
            before.partial_fit(X[rows] + 1, y[rows], classes=[0, 1])
        return before
    return before.fit(X + 1, 1 - y)


def learn(estimator, method="s"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return getattr(estimator, "partial_fit" if method == "stream" else "fit")(*blobs())


def state_of(estimator):
    """Return all that an estimator is made of, its optimiser included, as bytes."""
    net = getattr(estimator, "net_", None)
    steps = net.optimizer_.state_dict() if net is not None and net.has_optimizer else None
    return sorted(vars(estimator)), pickle.dumps(estimator), repr(steps)


def global_state():
    """Return what belongs to the process and not to the estimator."""
    numpy_state = np.random.get_state()  # noqa: NPY002
    return (
        numpy_state[1].tobytes(),
        numpy_state[2:],
        torch.get_rng_state().numpy().tobytes(),
        torch.get_num_threads(),
        [pool["num_threads"] for pool in threadpool_info()],
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.is_anomaly_enabled(),
        list(warnings.filters),
        np.geterr(),
    )


@pytest.fixture(scope="module", autouse=True)
def torch_has_imported_what_it_needs():
    """Train once: torch imports parts of itself late, and these add filters of warnings."""
    learn(classifier())


# --- Ctrl-C -------------------------------------------------------------------------------------


class Interrupter:
    """Raise KeyboardInterrupt when so many lines of the package have run, as Ctrl-C does."""

    def __init__(self, after=None):
        self.after = after
        self.lines = 0

    def _count(self, frame, event, arg):
        if event == "line":
            self.lines += 1
            if self.lines == self.after:
                raise KeyboardInterrupt
        return self._count

    def _enter(self, frame, event, arg):
        return self._count if frame.f_code.co_filename.startswith(SOURCES) else None

    def run(self, function):
        traced = sys.gettrace()
        sys.settrace(self._enter)
        try:
            return function()
        finally:
            sys.settrace(traced)


@cache
def lines_of(method):
    counter = Interrupter()
    counter.run(partial(learn, fitted(method), method))
    return counter.lines


@cache
def learned(method):
    """Return what a fit learns that nothing interrupts."""
    return learn(fitted(method), method)


def check_interrupt(method, after):
    estimator = fitted(method)
    before, process = state_of(estimator), global_state()
    interrupter = Interrupter(after)
    with pytest.raises(KeyboardInterrupt):
        interrupter.run(partial(learn, estimator, method))
    assert global_state() == process
    assert state_of(estimator) == before
    X, _ = blobs()
    again, fresh = learn(estimator, method), learned(method)
    assert_array_equal(again.predict_noisy_proba(X), fresh.predict_noisy_proba(X))
    assert_array_equal(again.transition_matrix_, fresh.transition_matrix_)
    assert again.n_iter_ == fresh.n_iter_


@every_method
@pytest.mark.parametrize("share", np.linspace(0.01, 1, 4).round(2))
def test_ctrl_c_at_any_line_leaves_all_as_it_was(method, share):
    check_interrupt(method, int(share * lines_of(method)))


@pytest.mark.slow
@every_method
@pytest.mark.parametrize("share", np.linspace(0.005, 0.995, 100).round(3))
def test_ctrl_c_at_many_more_lines_leaves_all_as_it_was(method, share):
    check_interrupt(method, int(share * lines_of(method)))


class RaisesInStage(Callback):
    """Raise an error where it is told to, the first time or the second that a stage comes."""

    stages = []

    def __init__(self, error, stage, hook="on_epoch_end", visit=1):
        self.error = error
        self.stage = stage
        self.hook = hook
        self.visit = visit

    def on_train_begin(self, net, **kwargs):
        self.begun = False

    def _notified(self, hook, net):
        stage = net.history[-1]["stage"]
        if not self.begun:
            self.begun = True
            self.stages.append(stage)
        if (hook, stage) == (self.hook, self.stage) and self.stages.count(stage) == self.visit:
            raise self.error

    def on_batch_begin(self, net, **kwargs):
        self._notified("on_batch_begin", net)

    def on_grad_computed(self, net, **kwargs):
        self._notified("on_grad_computed", net)

    def on_epoch_end(self, net, **kwargs):
        self._notified("on_epoch_end", net)


@pytest.mark.parametrize("hook", ["on_batch_begin", "on_grad_computed", "on_epoch_end"])
@pytest.mark.parametrize("error", [KeyboardInterrupt("enough"), OSError("no more paper")], ids=str)
@pytest.mark.parametrize(
    ("stage", "visit", "params"),
    [
        ("baseline", 1, {"noise_model": None}),
        ("baseline", 1, {}),
        ("baseline", 2, {}),
        ("start", 3, {"early_stopping": True}),
        ("s", 1, {}),
        ("c", 1, {"noise_model": "c"}),
        ("em", 1, {"method": "em", "max_em_iter": 2}),
    ],
    ids=["baseline", "first half", "second half", "start", "s", "c", "em"],
)
def test_errors_of_callbacks_come_out_of_every_stage(stage, visit, params, error, hook):
    RaisesInStage.stages.clear()
    raising = RaisesInStage(error, stage, hook, visit)
    module = nn.Linear(2, 4).double()
    weights = copy.deepcopy(module.state_dict())
    params = {"batch_size": 20, "max_epochs": 2, "random_state": 0} | params
    estimator = NoisyLabelClassifier(module, callbacks=[raising], **params)
    given, process = vars(raising).copy(), global_state()
    with pytest.raises(type(error), match=str(error)) as raised:
        estimator.fit(*blobs())
    assert traceback.extract_tb(raised.tb)[-1].name == "_notified"
    assert RaisesInStage.stages.count(stage) == visit
    assert vars(raising) == given
    assert global_state() == process
    assert module.training
    for key, value in module.state_dict().items():
        assert torch.equal(value, weights[key])
    assert set(vars(estimator)) == set(estimator.get_params())


class EarlyAndInterrupted(EarlyStopping):
    """Ctrl-C comes while skorch's callback waits for its patience."""

    def on_epoch_end(self, net, **kwargs):
        super().on_epoch_end(net, **kwargs)
        raise KeyboardInterrupt


def test_ctrl_c_is_told_from_the_early_stopping_of_skorch():
    callbacks = [EarlyAndInterrupted(monitor="train_loss", patience=5)]
    with pytest.raises(KeyboardInterrupt):
        classifier(callbacks=callbacks).fit(*blobs())


# --- Errors in what the user brings -------------------------------------------------------------


class Fails(nn.Linear):
    """Hidden layers that fail in training only, or in evaluation only after some batches."""

    def __init__(self, when="training"):
        super().__init__(2, 4)
        self.when = when
        self.batches = 0

    def forward(self, X):
        self.batches += 1
        if self.when == "training" and self.training:
            raise RuntimeError("the sensor is off")
        if self.when == "prediction" and not self.training and self.batches > 2:
            raise RuntimeError("the sensor is off")
        return super().forward(X)


class FailingSGD(torch.optim.SGD):
    def step(self, closure=None):
        raise RuntimeError("the sensor is off")


def failing_batches(dataset, batch_size):
    yield dataset.take(slice(0, batch_size))
    raise RuntimeError("the sensor is off")


@pytest.mark.parametrize(
    ("params", "place"),
    [
        ({"module": Fails}, "forward"),
        ({"module": Fails, "module__when": "prediction"}, "forward"),
        ({"optimizer": FailingSGD}, "step"),
        ({"iterator_train": failing_batches}, "failing_batches"),
        ({"iterator_valid": failing_batches}, "failing_batches"),
    ],
    ids=["training", "prediction", "optimizer", "iterator_train", "iterator_valid"],
)
@pytest.mark.parametrize("method", ["plain", "s", "held out", "stream"])
def test_errors_come_out_with_their_own_trace(method, params, place):
    estimator, process = classifier(method, **params), global_state()
    with pytest.raises(RuntimeError, match="the sensor is off") as raised:
        if method == "stream":
            estimator.partial_fit(*blobs(), classes=[0, 1])
        else:
            estimator.fit(*blobs())
    assert raised.value.__cause__ is None
    assert traceback.extract_tb(raised.tb)[-1].name == place
    assert global_state() == process
    assert set(vars(estimator)) == set(estimator.get_params())
    estimator.set_params(
        module=None, optimizer=torch.optim.Adam, iterator_train=None, iterator_valid=None
    )
    vars(estimator).pop("module__when", None)
    X, _ = blobs()
    assert_array_equal(
        learn(estimator).predict_proba(X), learn(classifier(method)).predict_proba(X)
    )


def test_a_generator_given_as_a_seed_is_put_back():
    seeds = np.random.RandomState(3)
    before = seeds.get_state()
    with pytest.raises(RuntimeError, match="sensor"):
        classifier(random_state=seeds, module=Fails).fit(*blobs())
    assert_array_equal(seeds.get_state()[1], before[1])


class InterruptsStage(Callback):
    """Raise KeyboardInterrupt in the first epoch of a stage, if it is told to."""

    armed = False

    def __init__(self, stage):
        self.stage = stage

    def on_epoch_end(self, net, **kwargs):
        if self.armed and net.history[-1, "stage"] == self.stage:
            raise KeyboardInterrupt


@pytest.mark.parametrize("model", ["s", "c"])
def test_an_interrupt_in_the_chunk_where_the_noise_layer_starts_takes_it_off_again(
    model, monkeypatch
):
    X, y = make_blobs(1200, centers=2, random_state=0)
    y = corrupt_labels(y, uniform_transition(2, 0.3), random_state=0)
    estimator = classifier(
        noise_model=model,
        transition_init="cluster",
        n_iter_no_change=1,
        lr=0.05,
        callbacks=[InterruptsStage(model)],
    )
    monkeypatch.setattr(InterruptsStage, "armed", True)
    for _ in range(20):
        before = state_of(estimator) if hasattr(estimator, "net_") else None
        try:
            estimator.partial_fit(X, y, classes=[0, 1])
        except KeyboardInterrupt:
            break
    else:
        pytest.fail("the noise layer never started")
    assert estimator.net_.network.noise is None
    assert state_of(estimator) == before
    monkeypatch.setattr(InterruptsStage, "armed", False)
    estimator.partial_fit(X, y)
    assert estimator.net_.network.noise is not None


# --- A loss that is not finite ------------------------------------------------------------------


class OverflowsInEvaluation(nn.Linear):
    def __init__(self):
        super().__init__(2, 4)
        self.trained = False

    def forward(self, X):
        self.trained |= self.training
        hidden = super().forward(X)
        return hidden if self.training or not self.trained else hidden * torch.inf


def test_a_held_out_loss_that_overflows_stops_the_fit_with_advice():
    estimator = classifier(early_stopping=True, module=OverflowsInEvaluation)
    message = r"The valid_loss became nan in epoch 1 \(stage 'baseline'\)\. Lower .* or scale X"
    with pytest.raises(ValueError, match=message):
        estimator.fit(blobs()[0].astype(np.float32), blobs()[1])


class Exponential(nn.Linear):
    def __init__(self):
        super().__init__(2, 4)

    def forward(self, X):
        return super().forward(X).exp()


def test_a_stream_survives_rows_that_ruin_a_step():
    X, y = blobs()
    estimator = fitted("stream", module=Exponential)
    before = state_of(estimator)
    with pytest.raises(ValueError, match=r"train_loss became (nan|inf) .* scale X"):
        estimator.partial_fit(X * 1e4, y)
    assert state_of(estimator) == before
    assert np.isfinite(estimator.partial_fit(X, y).predict_proba(X)).all()
