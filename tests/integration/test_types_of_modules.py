"""Weights and buffers of the user's modules: each keeps the type that it was given on purpose."""

import copy
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.datasets import make_classification
from torch import nn

from sknoisy import NoisyLabelClassifier

X, y = make_classification(
    300, 8, n_informative=5, n_classes=3, n_clusters_per_class=1, random_state=0
)
both_types = pytest.mark.parametrize("dtype", ["float32", "float64"])


class Fourier(nn.Module):
    """Has no weights, and a complex buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("basis", torch.fft.fft(torch.eye(8)))

    def forward(self, X):
        return (X.to(torch.cfloat) @ self.basis).imag


class ComplexWeights(nn.Module):
    """Learns complex weights."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 6, dtype=torch.cfloat) / 3)
        self.layer = nn.Linear(6, 6)

    def forward(self, X):
        return torch.relu(self.layer((X.to(torch.cfloat) @ self.weight).abs().to(X.dtype)))


class Tables(nn.Module):
    """Looks numbers up in half precision, and subtracts large constants in float64."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.linspace(-1, 1, 64).reshape(8, 8).half())
        self.register_buffer("brain", torch.linspace(-1, 1, 8).bfloat16())
        self.register_buffer("origin", torch.full((8,), 1_700_000_000.5, dtype=torch.float64))
        self.register_buffer("scale", torch.linspace(0.5, 1.0, 8))
        self.register_buffer("order", torch.arange(8).flip(0))
        self.register_buffer("mask", torch.arange(8) % 2 == 0)
        self.frozen = nn.Parameter(torch.ones(8, dtype=torch.float64) / 3, requires_grad=False)
        self.layer = nn.Linear(16, 16)

    def forward(self, X):
        near = (X.double() + self.origin - self.origin) * self.frozen
        table = X @ self.table.to(X.dtype) + self.brain.to(X.dtype)
        return torch.relu(self.layer(torch.cat([near.to(X.dtype) * self.scale, table], dim=1)))


class HalfTable(nn.Module):
    """Learns a table in half precision next to float32 layers."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(4, 8, dtype=torch.bfloat16)
        self.bias = nn.Embedding(4, 8, dtype=torch.bfloat16)
        self.layer = nn.Linear(8, 16, bias=False)

    def forward(self, X):
        row = (X[:, 0] > 0).long()
        return torch.relu(self.layer(X + (self.table(row) + self.bias(row)).to(X.dtype)))


class Returns(nn.Module):
    """Returns another floating point type than it takes."""

    def __init__(self, dtype):
        super().__init__()
        self.layer = nn.Linear(8, 16)
        self.dtype = dtype

    def forward(self, X):
        return torch.relu(self.layer(X)).to(self.dtype)


def fit(module, dtype="float32", **params):
    common = {"max_epochs": 6, "lr": 0.02, "random_state": 0, "select_noise_model": False}
    return NoisyLabelClassifier(module, **common | params).fit(X.astype(dtype), y)


def types_of(module):
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.dtype for name, tensor in tensors}


def buffers_of(module):
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


@both_types
@pytest.mark.parametrize("module", [Fourier, Fourier()], ids=["class", "instance"])
def test_complex_buffers_keep_their_imaginary_part(module, dtype):
    fitted = fit(module, dtype)
    assert_array_equal(fitted.net_.network.hidden.basis, Fourier().basis)
    assert fitted.score(X, y) > 0.6


@both_types
def test_complex_weights_learn(dtype):
    fitted = fit(ComplexWeights, dtype, max_epochs=20)
    weight = fitted.net_.network.hidden.weight
    assert weight.dtype == torch.cfloat
    assert weight.imag.abs().min() > 0
    assert fitted.score(X, y) > 0.6


@both_types
@pytest.mark.parametrize("params", [{}, {"noise_model": "c"}, {"method": "em", "tol": 10.0}])
@pytest.mark.parametrize("made", ["class", "instance"])
def test_only_what_has_the_type_of_the_weights_is_cast(made, params, dtype):
    fitted = fit(Tables if made == "class" else Tables(), dtype, **params)
    hidden, given = fitted.net_.network.hidden, Tables()
    network_type = getattr(torch, dtype)
    cast = {"scale", "layer.weight", "layer.bias"}
    types = {name: network_type if name in cast else t for name, t in types_of(given).items()}
    assert types_of(hidden) == types
    for name in types.keys() - cast:
        assert_array_equal(
            hidden.get_buffer(name).float() if name != "frozen" else hidden.frozen.detach(),
            given.get_buffer(name).float() if name != "frozen" else given.frozen.detach(),
        )
    assert fitted.net_.dtype == network_type
    assert fitted.score(X, y) > 0.5


def test_a_module_in_double_trains_in_the_type_of_the_data():
    module = Returns(torch.float64).double()
    assert types_of(fit(module).net_.network.hidden)["layer.weight"] == torch.float32
    assert types_of(module)["layer.weight"] == torch.float64  # the caller's stays


@both_types
def test_trained_weights_in_half_precision_stay_so(dtype):
    types = types_of(fit(HalfTable, dtype).net_.network.hidden)
    assert types.pop("layer.weight") == getattr(torch, dtype)
    assert set(types.values()) == {torch.bfloat16}


@both_types
@pytest.mark.parametrize("returned", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("noise_model", ["s", "c", None])
def test_hidden_layers_may_return_another_type(returned, dtype, noise_model):
    fitted = fit(Returns, dtype, module__dtype=returned, noise_model=noise_model, lr=0.01)
    assert fitted.predict_proba(X.astype(dtype)).dtype == np.float64
    assert fitted.score(X, y) > 0.6


def test_types_stay_from_fit_to_fit():
    fitted = fit(Tables, "float32", warm_start=True)
    before = buffers_of(fitted.net_.network.hidden)
    for dtype in ("float64", "float32", "float32"):
        fitted.fit(X.astype(dtype), y)
        after = buffers_of(fitted.net_.network.hidden)
        assert after["scale"].dtype == getattr(torch, dtype)
        for name in before.keys() - {"scale"}:
            assert after[name].dtype == before[name].dtype
            assert torch.equal(after[name], before[name])


def test_types_stay_in_a_stream():
    fitted = NoisyLabelClassifier(Tables, random_state=0)
    for rows in (slice(0, 100), slice(100, 200), slice(200, 300)):
        fitted.partial_fit(X[rows].astype("float32"), y[rows], classes=[0, 1, 2])
    assert types_of(fitted.net_.network.hidden) == types_of(Tables())


@pytest.mark.parametrize("module", [Fourier, ComplexWeights, Tables, HalfTable])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_types_stay_in_copies(module, copied):
    fitted = fit(module, max_epochs=1)
    again = copied(fitted)
    assert types_of(again.net_.network) == types_of(fitted.net_.network)
    assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))


def test_types_stay_in_files(tmp_path):
    from sknoisy import load_model, save_model

    fitted = fit(Tables, max_epochs=1)
    save_model(fitted, tmp_path / "model.skops")
    again = load_model(tmp_path / "model.skops", trusted=[f"{__name__}.Tables"])
    assert types_of(again.net_.network) == types_of(fitted.net_.network)
    assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
