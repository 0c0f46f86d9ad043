"""Modules from ``torch.jit`` learn what the modules they were made of learn."""

import copy
import pickle

import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV, cross_val_score
from torch import nn

from sknoisy import NoisyLabelClassifier, load_model, save_model

pytestmark = [
    # torch.jit is deprecated from Python 3.14 on.
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]

X, y = make_classification(
    200, 8, n_informative=5, n_classes=3, n_clusters_per_class=1, random_state=0
)


class Hidden(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout)
        )
        self.register_buffer("shift", torch.ones(8))

    def forward(self, X):
        return self.layers(X + self.shift)


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def scripted():
    return torch.jit.script(Hidden())


def traced():
    return torch.jit.trace(Hidden(), torch.randn(2, 8), check_trace=False)


def part_of_a_module():
    return nn.Sequential(torch.jit.script(Hidden()), nn.Linear(16, 6), nn.ReLU())


MODULES = {"scripted": scripted, "traced": traced, "part of a module": part_of_a_module}
every_module = pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
METHODS = {
    "s": {},
    "selected": {"select_noise_model": True, "early_stopping": True},
    "c": {"noise_model": "c"},
    "plain": {"noise_model": None},
    "em": {"method": "em", "max_em_iter": 3, "tol": 1.0},
    "held out": {"early_stopping": True},
    "warm": {"warm_start": True},
    "volume": {"volume_penalty": 0.1},
    "SGD": {"optimizer": torch.optim.SGD, "lr": 0.1},
}


# How numbers are converted does not depend on the method.
METHODS_AND_TYPES = [
    *((method, "float32") for method in METHODS),
    ("s", "float64"),
    *(pytest.param(m, "float64", marks=pytest.mark.slow) for m in METHODS if m != "s"),
]


def classifier(module, **params):
    common = {"max_epochs": 3, "lr": 0.01, "select_noise_model": False, "random_state": 0}
    params = common | params
    return NoisyLabelClassifier(module, **params)


@every_module
@pytest.mark.parametrize(("method", "dtype"), METHODS_AND_TYPES)
def test_an_instance_is_trained_and_stays_as_it_was(make, method, dtype):
    module = seeded(make)
    before = copy.deepcopy(module.state_dict())
    fitted = classifier(module, **METHODS[method]).fit(X.astype(dtype), y)
    if method == "warm":
        fitted.fit(X.astype(dtype), y)
    weights = list(fitted.net_.network.hidden.parameters())
    assert all(str(weight.dtype) == f"torch.{dtype}" for weight in weights)
    assert not all(
        torch.equal(weight, given.to(weight.dtype))
        for weight, given in zip(weights, module.parameters(), strict=True)
    )
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_scripted_instance_learns_what_its_module_learns():
    plain, script = seeded(Hidden), seeded(scripted)
    for params in METHODS.values():
        learned = classifier(script, **params).fit(X, y).predict_proba(X)
        assert_allclose(learned, classifier(plain, **params).fit(X, y).predict_proba(X), atol=1e-6)


@every_module
def test_a_factory_of_scripted_modules_is_taken(make):
    assert classifier(make, max_epochs=30).fit(X, y).score(X, y) > 0.7


@every_module
def test_a_scripted_module_learns_from_a_stream(make):
    learned = classifier(seeded(make))
    for rows in (slice(0, 100), slice(100, 200)):
        learned.partial_fit(X[rows], y[rows], classes=[0, 1, 2])
    after_fit = classifier(seeded(make)).fit(X, y).partial_fit(X, y)
    for one in (learned, after_fit):
        assert one.predict_proba(X).shape == (200, 3)


@every_module
def test_clones_and_searches_of_scripted_modules_learn(make):
    module = seeded(make)
    model = classifier(module)
    expected = clone(model).fit(X, y).predict_proba(X)
    assert_array_equal(clone(clone(model)).fit(X, y).predict_proba(X), expected)
    assert len(cross_val_score(model, X, y, cv=2)) == 2
    search = GridSearchCV(model, {"lr": [0.01, 0.1]}, cv=2, error_score="raise").fit(X, y)
    assert search.predict(X).shape == (200,)


@every_module
def test_frozen_weights_of_a_scripted_module_stay_frozen(make):
    module = seeded(make)
    next(module.parameters()).requires_grad_(False)
    fitted = classifier(module).fit(X.astype("float32"), y)
    first, second, *_ = fitted.net_.network.hidden.parameters()
    assert torch.equal(first, next(module.parameters()))
    assert not first.requires_grad
    assert second.requires_grad


def pickled(fitted):
    return pickle.loads(pickle.dumps(fitted))


@every_module
@pytest.mark.parametrize("made", [lambda make: make, seeded], ids=["factory", "instance"])
@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_of_a_fitted_scripted_module_predicts_the_same(copied, made, make):
    fitted = classifier(made(make)).fit(X, y)
    again = copied(fitted)
    assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert again.partial_fit(X, y).fit(X, y).predict(X).shape == (200,)


def test_a_scripted_module_that_is_shared_is_copied():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = self.second = torch.jit.script(nn.Linear(8, 8))

        def forward(self, X):
            return self.second(self.first(X).relu()).relu()

    fitted = classifier(Twice).fit(X, y)
    assert_array_equal(copy.deepcopy(fitted).predict_proba(X), fitted.predict_proba(X))


@every_module
def test_a_file_of_a_scripted_module_is_loaded_when_it_is_trusted(make, tmp_path):
    fitted = classifier(seeded(make)).fit(X, y)
    save_model(fitted, tmp_path / "model.skops")
    with pytest.raises(ValueError, match=r"trusted types only.*StoredScript"):
        load_model(tmp_path / "model.skops")
    trusted = ["sknoisy._net.net_state.StoredScript", "torch.nn.modules.container.Sequential"]
    again = load_model(tmp_path / "model.skops", trusted=trusted)
    assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
