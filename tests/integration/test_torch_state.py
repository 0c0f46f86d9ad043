"""Settings of torch: results are the same under those of the caller, which stay as they are."""

import copy
import pickle
import threading
from contextlib import contextmanager
from functools import cache, partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.datasets import make_classification
from sklearn.model_selection import cross_val_score
from torch import nn
from torch.utils.data import DataLoader

from sknoisy import NoisyLabelClassifier
from sknoisy._support.torch_state import plain_torch
from sknoisy.inspection import label_quality
from sknoisy.noise import corrupt_labels, uniform_transition


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def all_of_them():
    modes = torch.inference_mode(), torch.autocast("cpu")
    with modes[0], modes[1], default_dtype(torch.float64), default_device("meta"):
        yield


SETTINGS = {
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "mixed precision": partial(torch.autocast, "cpu"),
    "mixed precision in half": partial(torch.autocast, "cpu", dtype=torch.float16),
    "double by default": partial(default_dtype, torch.float64),
    "half by default": partial(default_dtype, torch.float16),
    "meta by default": partial(default_device, "meta"),
    "meta in a block": partial(torch.device, "meta"),
    "all of them": all_of_them,
}
every_setting = pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)


class Hidden(nn.Module):
    """Layers of all kinds, and tensors that are made where and as torch's defaults say."""

    def __init__(self, width=16):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(8, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2)
        )
        self.register_buffer("scale", torch.linspace(0.5, 2, 8))

    def forward(self, X):
        shift = torch.linspace(-1, 1, 8).to(X.dtype)
        return self.layers((X + shift) * self.scale) + torch.zeros(1).to(X.dtype)


CLASSIFIERS = {
    "default": {},
    "dropout": {"dropout": 0.3},
    "two layers": {"hidden_layer_sizes": (12, 6)},
    "own module": {"module": Hidden},
    "plain": {"module": Hidden, "noise_model": None},
    "c": {"module": Hidden, "noise_model": "c"},
    "sparse c": {"noise_model": "c", "n_noise_targets": 2},
    "em": {"module": Hidden, "method": "em", "max_em_iter": 3, "tol": 0.0},
    "volume": {"module": Hidden, "volume_penalty": 0.1},
    "cluster": {"dropout": 0.2, "transition_init": "cluster"},
    "held out": {"module": Hidden, "early_stopping": True, "class_weight": "balanced"},
    "loader": {"module": Hidden, "iterator_train": DataLoader, "iterator_valid": DataLoader},
    "SGD": {"module": Hidden, "optimizer": torch.optim.SGD, "lr": 0.05},
}
PREDICTIONS = (
    "predict",
    "predict_proba",
    "predict_log_proba",
    "predict_noisy_proba",
    "predict_transition",
)


@cache
def data():
    X, y = make_classification(200, 8, n_informative=5, n_classes=3, random_state=0)
    return X.astype("float32"), corrupt_labels(y, uniform_transition(3, 0.2), random_state=0)


def classifier(name="own module", **params):
    common = {"max_epochs": 3, "lr": 0.01, "random_state": 0, "select_noise_model": False}
    return NoisyLabelClassifier(**common | CLASSIFIERS[name] | params)


def fit(name="own module", **params):
    return classifier(name, **params).fit(*data())


@cache
def fitted_outside(name="own module"):
    return fit(name)


def assert_same(one, other):
    assert_array_equal(one.transition_matrix_, other.transition_matrix_)
    assert_array_equal(one.predict_proba(data()[0]), other.predict_proba(data()[0]))
    assert str(one.net_.dtype) == str(other.net_.dtype)


def caller_state():
    return (
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_default_device(),
    )


@pytest.mark.parametrize(
    ("name", "setting"),
    [(name, setting) for name in CLASSIFIERS for setting in ("inference mode", "all of them")]
    + [(name, setting) for name in ("dropout", "own module", "c") for setting in SETTINGS],
)
def test_a_fit_is_the_same_whatever_the_caller_has_set(name, setting):
    with SETTINGS[setting]():
        before = caller_state()
        inside = fit(name)
        assert caller_state() == before
    assert_same(inside, fitted_outside(name))


@every_setting
@pytest.mark.parametrize("name", ["default", "dropout", "own module", "c", "SGD"])
def test_a_stream_may_change_its_surroundings_between_calls(name, setting):
    X, y = data()

    def stream(*surroundings):
        learned = classifier(name, transition_init=uniform_transition(3, 0.2))
        for rows, setting in zip(np.split(np.arange(200), 4), surroundings, strict=True):
            with setting():
                learned.partial_fit(X[rows], y[rows], classes=[0, 1, 2])
        return learned

    outside = stream(*[torch.enable_grad] * 4)
    assert_same(stream(*[setting] * 4), outside)
    assert_same(stream(setting, torch.enable_grad, setting, torch.enable_grad), outside)


@every_setting
def test_predictions_are_the_same_whatever_the_caller_has_set(setting):
    X, y = data()
    for name in ("default", "own module", "c", "sparse c"):
        fitted = fitted_outside(name)
        outside = [getattr(fitted, method)(X) for method in PREDICTIONS]
        outside += [fitted.label_posterior(X, y), label_quality(fitted, X, y)]
        with setting():
            before = caller_state()
            inside = [getattr(fitted, method)(X) for method in PREDICTIONS]
            inside += [fitted.label_posterior(X, y), label_quality(fitted, X, y)]
            assert caller_state() == before
        for one, other in zip(inside, outside, strict=True):
            assert type(one) is np.ndarray
            assert_array_equal(one, other)


@every_setting
def test_a_cross_validation_in_an_evaluation_function_learns(setting):
    scores = cross_val_score(classifier(), *data(), cv=2)
    with setting():
        assert_array_equal(cross_val_score(classifier(), *data(), cv=2), scores)


@every_setting
def test_what_was_fitted_inside_can_go_on_outside(setting):
    with setting():
        inside = fit(warm_start=True)
        copies = [copy.deepcopy(inside), pickle.loads(pickle.dumps(inside))]
    outside = fit(warm_start=True).fit(*data())
    for one in (inside, *copies):
        assert_same(one.fit(*data()), outside)
        one.partial_fit(*data())


@every_setting
def test_a_failed_call_of_a_stream_leaves_the_optimiser_usable(setting):
    X, y = data()

    def stream(**setting):
        return classifier(**setting).partial_fit(X, y, classes=[0, 1, 2])

    class BrokenError(Exception):
        pass

    class Breaks:
        armed = False

        def __call__(self, parameters, **params):
            optimizer = torch.optim.Adam(parameters, **params)
            step = optimizer.step

            def broken(closure):
                loss = step(closure)
                if self.armed:
                    raise BrokenError
                return loss

            optimizer.step = broken
            return optimizer

    optimizer = Breaks()
    learned = stream(optimizer=optimizer)
    with setting():
        optimizer.armed = True
        with pytest.raises(BrokenError):
            learned.partial_fit(X, y)
        optimizer.armed = False
    assert_same(learned.partial_fit(X, y), stream(optimizer=Breaks()).partial_fit(X, y))


@pytest.mark.parametrize("name", ["inference mode", "no gradients", "mixed precision"])
def test_an_instance_made_inside_is_trained(name):
    torch.manual_seed(0)
    outside = Hidden()
    torch.manual_seed(0)
    with SETTINGS[name]():
        inside = Hidden()
        trained_inside = fit(module=inside)
    assert_same(trained_inside, fit(module=outside))
    assert_same(fit(module=inside), trained_inside)


def test_an_instance_without_data_is_refused():
    with default_device("meta"):
        module = Hidden()
        with pytest.raises(ValueError, match=r"`module` must .*meta"):
            fit(module=module)


def test_a_seed_gives_the_same_in_double_whatever_the_default_type():
    X, y = data()
    outside = classifier().fit(X.astype("float64"), y)
    with default_dtype(torch.float64):
        inside = classifier().fit(X.astype("float64"), y)
    assert_same(inside, outside)


def test_threads_that_overlap_put_the_default_type_back():
    inside, leave = threading.Event(), threading.Event()

    def stay_inside():
        with plain_torch():
            inside.set()
            leave.wait(10)

    with default_dtype(torch.float64):
        first = threading.Thread(target=stay_inside)
        first.start()
        assert inside.wait(10)
        with plain_torch():  # enters second and leaves first
            assert torch.get_default_dtype() == torch.float32
        assert torch.get_default_dtype() == torch.float32  # the other thread still needs it
        leave.set()
        first.join()
        assert torch.get_default_dtype() == torch.float64


def test_an_error_inside_puts_everything_back():
    with all_of_them():
        before = caller_state()
        with pytest.raises(ZeroDivisionError), plain_torch():
            1 / 0  # noqa: B018
        assert caller_state() == before
