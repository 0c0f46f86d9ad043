"""A fitted classifier in a file: small, without data, readable without running its code."""

import copy
import io
import pickle
import warnings

import joblib
import numpy as np
import pytest
import safetensors.torch
import skops.io
import torch
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import EpochScoring
from skorch.exceptions import DeviceWarning
from torch import nn

from sknoisy import SKOPS_TRUSTED_TYPES, NoisyLabelClassifier
from sknoisy._classifier import persistence
from sknoisy._net import net_state


class SharedAndRecurrent(nn.Module):
    """Weights that are shared, recurrent, normalised, frozen, and a buffer that is not saved."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(8, 8)
        self.again = nn.Linear(8, 8)
        self.again.weight = self.encode.weight
        self.gru = nn.GRU(8, 6, batch_first=True, bidirectional=True)
        self.norm = nn.BatchNorm1d(12)
        self.norm.weight.requires_grad_(False)
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)

    def forward(self, X):
        X = self.again(self.encode(X.reshape(-1, 8, 8)).relu()) * self.scale
        return self.norm(self.gru(X)[0][:, -1])


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype("float32")[:500], y[:500]


#: The start that costs least, and a noise model in any case.
SHORT = {"max_epochs": 3, "select_noise_model": False, "transition_init": "confusion"}


def quick(**params):
    return NoisyLabelClassifier(**SHORT | {"random_state": 0} | params)


def joblib_round_trip(classifier):
    file = io.BytesIO()
    joblib.dump(classifier, file)
    file.seek(0)
    return joblib.load(file)


def skops_round_trip(classifier):
    data = skops.io.dumps(classifier)
    own = [f"{__name__}.SharedAndRecurrent", f"{__name__}.Hidden"]
    own += [f"torch.nn.modules.{name}" for name in ("rnn.GRU", "batchnorm.BatchNorm1d")]
    return skops.io.loads(data, trusted=[*SKOPS_TRUSTED_TYPES, *own])


ROUND_TRIPS = {
    "pickle": lambda classifier: pickle.loads(pickle.dumps(classifier)),
    "joblib": joblib_round_trip,
    "skops": skops_round_trip,
    "deepcopy": copy.deepcopy,
}


KINDS = {
    "s": {"transition_init": "auto"},
    "c": {"noise_model": "c", "dropout": 0.1},
    "none": {"noise_model": None, "early_stopping": True},
    "em": {"method": "em", "tol": 10.0},
    "known": {"transition_init": np.eye(10) * 0.5 + 0.05, "learn_transition": False},
    "module": {"module": SharedAndRecurrent},
}
NAMES = np.array([f"digit {i}" for i in range(10)])


@pytest.fixture(scope="module", params=KINDS)
def fitted(request, digits):
    X, y = digits
    return quick(**KINDS[request.param]).fit(X, NAMES[y])


@pytest.mark.parametrize("round_trip", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
def test_a_loaded_classifier_says_the_same(fitted, round_trip, digits):
    X, y = digits
    loaded = round_trip(fitted)
    assert_array_equal(loaded.predict(X), fitted.predict(X))
    assert_array_equal(loaded.predict_noisy_proba(X), fitted.predict_noisy_proba(X))
    assert_array_equal(loaded.transition_matrix_, fitted.transition_matrix_)
    assert loaded.history_ == fitted.history_
    assert loaded.history_[:, "stage"] == fitted.history_[:, "stage"]
    before, after = fitted.net_.network, loaded.net_.network
    assert before.state_dict().keys() == after.state_dict().keys()
    for (name, ours), (other, theirs) in zip(
        before.named_parameters(), after.named_parameters(), strict=True
    ):
        assert (name, ours.requires_grad) == (other, theirs.requires_grad)
    loaded.set_params(warm_start=True, max_em_iter=1, tol=10.0).fit(X, NAMES[y])
    assert loaded.n_iter_ > fitted.n_iter_


def test_shared_weights_stay_shared_and_are_stored_once(digits):
    fitted = quick(module=SharedAndRecurrent).fit(*digits)
    hidden = pickle.loads(pickle.dumps(fitted)).net_.network.hidden
    assert hidden.again.weight is hidden.encode.weight


def test_skops_needs_the_listed_types_only(digits):
    for params in ({}, {"noise_model": "c", "dropout": 0.5}):
        pipeline = make_pipeline(StandardScaler(), quick(**params)).fit(*digits)
        data = skops.io.dumps(pipeline)
        assert set(skops.io.get_untrusted_types(data=data)) <= set(SKOPS_TRUSTED_TYPES)
    stream = quick().partial_fit(*digits, classes=range(10))
    untrusted = skops.io.get_untrusted_types(data=skops.io.dumps(stream))
    assert set(untrusted) <= set(SKOPS_TRUSTED_TYPES)


def test_skops_tells_of_the_module_of_the_user(digits):
    data = skops.io.dumps(quick(module=SharedAndRecurrent).fit(*digits))
    assert f"{__name__}.SharedAndRecurrent" in skops.io.get_untrusted_types(data=data)
    with pytest.raises(skops.io.exceptions.UntrustedTypesFoundException):
        skops.io.loads(data, trusted=SKOPS_TRUSTED_TYPES)


def test_nothing_in_the_file_is_a_pickle(digits):
    """A file that skops has checked runs no code, since the weights are arrays."""
    net = quick().fit(*digits).net_

    def leaves(value):
        if isinstance(value, dict):
            value = list(value.values())
        return [x for v in value for x in leaves(v)] if isinstance(value, list) else [value]

    assert not any(isinstance(leaf, bytes) for leaf in leaves(net.__getstate__()))


@pytest.mark.parametrize("noise_model", ["s", "c"])
def test_weights_go_through_safetensors(noise_model, digits, tmp_path):
    X, y = digits
    fitted = quick(noise_model=noise_model, select_noise_model=False).fit(X, y)
    other = clone(fitted).set_params(random_state=1).fit(X, y)
    safetensors.torch.save_file(fitted.net_.network.state_dict(), tmp_path / "weights.safetensors")
    other.net_.network.load_state_dict(
        safetensors.torch.load_file(tmp_path / "weights.safetensors")
    )
    assert_array_equal(other.predict_noisy_proba(X), fitted.predict_noisy_proba(X))
    fitted.net_.save_params(f_params=tmp_path / "net.safetensors", use_safetensors=True)
    again = clone(fitted).set_params(random_state=2).fit(X, y)
    again.net_.load_params(f_params=tmp_path / "net.safetensors", use_safetensors=True)
    assert_array_equal(again.predict_noisy_proba(X), fitted.predict_noisy_proba(X))


def test_another_version_says_so(digits, monkeypatch):
    X, y = digits
    data = pickle.dumps(quick().fit(X, y))
    file = skops.io.dumps(quick().fit(X, y))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(data)
    monkeypatch.setattr(persistence, "__version__", "99.0")
    message = r"NoisyLabelClassifier from version \d\S* of sknoisy when using version 99.0 of"
    with pytest.warns(InconsistentVersionWarning, match=message):
        loaded = pickle.loads(data)
    assert loaded.predict(X).shape == y.shape
    with pytest.warns(InconsistentVersionWarning, match=message):
        skops.io.loads(file, trusted=SKOPS_TRUSTED_TYPES)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a device that is not there")
def test_a_classifier_from_a_gpu_is_loaded_on_a_cpu(digits):
    X, y = digits
    fitted = quick().fit(X, y)
    expected = fitted.predict_proba(X)
    fitted.net_.device = "cuda"  # as it would be in the file
    data = pickle.dumps(fitted)
    with pytest.warns(DeviceWarning, match="no CUDA devices are available"):
        loaded = pickle.loads(data)
    assert loaded.net_.device == "cpu"
    assert_array_equal(loaded.predict_proba(X), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_weights_in_a_file_are_of_no_device(digits):
    X, y = digits
    fitted = quick(device="cuda").fit(X, y)
    parts = fitted.net_.__getstate__()["network"]
    on_cpu = net_state.network_from_arrays(parts, "cpu")
    assert all(tensor.device.type == "cpu" for tensor in on_cpu.state_dict().values())
    loaded = pickle.loads(pickle.dumps(fitted))
    assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


def test_an_unfitted_classifier_goes_through_a_file():
    loaded = pickle.loads(pickle.dumps(quick(module=SharedAndRecurrent, optimizer__eps=1e-3)))
    assert loaded.get_params()["optimizer__eps"] == 1e-3
    assert not hasattr(loaded, "history_")


def weights_in_bytes(classifier):
    tensors = [*classifier.net_.network.parameters(), *classifier.net_.network.buffers()]
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("noise_model", ["s", "c", None])
def test_the_file_is_hardly_larger_than_weights_and_history(noise_model, digits):
    X, y = digits
    for params in ({"max_epochs": 60}, {"early_stopping": True, "transition_init": "auto"}):
        fitted = quick(noise_model=noise_model, **params).fit(X, y)
        # A row of the history has up to ten numbers.
        limit = 1.5 * weights_in_bytes(fitted) + 90 * fitted.n_iter_
        assert len(pickle.dumps(fitted)) <= limit
        file = io.BytesIO()
        joblib.dump(fitted, file)
        assert file.tell() <= limit
    large = quick(noise_model=noise_model, hidden_layer_sizes=(600,)).fit(X, y)
    file = skops.io.dumps(large, compression=8)
    assert len(file) <= 1.5 * weights_in_bytes(large)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"noise_model": "c", "early_stopping": True},
        {"method": "em", "tol": 10.0},
        {"callbacks": [EpochScoring("accuracy", on_train=True)]},
        {"stream": True},
    ],
    ids=["s", "c", "em", "callbacks", "stream"],
)
def test_no_training_data_is_in_the_file(params, digits):
    X, y = digits
    params = dict(params)
    stream = params.pop("stream", False)
    sizes = []
    for n_rows in (len(X), 20 * len(X)):
        rows = np.arange(n_rows) % len(X)
        classifier = quick(batch_size=n_rows, **params)
        if stream:
            for _ in range(3):
                classifier.partial_fit(X[rows], y[rows], classes=range(10))
            classifier.fit(X[rows], y[rows]).partial_fit(X[rows], y[rows])
        else:
            classifier.fit(X[rows], y[rows])
        data = pickle.dumps(classifier)
        for row in (X[0], X[0].astype("float64"), y[:20]):
            assert row.tobytes() not in data
        sizes.append(len(data))
    assert sizes[1] < 1.1 * sizes[0]
