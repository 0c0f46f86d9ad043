"""Hidden layers of any kind: classes, factories, instances, images, sequences, backbones."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from torch import nn

from sknoisy import NoisyLabelClassifier
from sknoisy.noise import corrupt_labels, pair_transition


class Hidden(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, width), nn.ReLU())

    def forward(self, X):
        return self.layers(X)


class Convolutions(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.LazyLinear(24),
            nn.ReLU(),
        )


class LastState(nn.Module):
    def __init__(self, width=24):
        super().__init__()
        self.gru = nn.GRU(8, width, batch_first=True)

    def forward(self, X):
        return self.gru(X)[1][-1]


class Backbone(nn.Module):
    """A body that is thought of as trained before, and new layers behind it."""

    def __init__(self, frozen=False):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
        self.neck = nn.Linear(32, 16)
        if frozen:
            self.body.requires_grad_(False)

    def forward(self, X):
        return self.neck(self.body(X)).relu()


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    keep = y < 4
    X, y = (X[keep] / 16).astype("float32"), y[keep]
    return X, y, corrupt_labels(y, pair_transition(4, 0.2), random_state=0)


def quick(module, **params):
    return NoisyLabelClassifier(module, **{"max_epochs": 4, "random_state": 0} | params)


@pytest.mark.parametrize(
    "module",
    [Hidden, lambda: Hidden(16), Hidden(16), nn.Sequential(nn.LazyLinear(16), nn.ReLU())],
    ids=["class", "factory", "instance", "lazy"],
)
def test_a_module_is_a_class_a_factory_or_an_instance(module, digits):
    X, _, y = digits
    classifier = clone(quick(module)).fit(X, y)
    assert classifier.net_.network.head.in_features == 16
    assert classifier.predict_proba(X).shape == (len(X), 4)


def test_an_instance_is_copied_and_its_weights_are_where_training_starts(digits):
    X, _, y = digits
    module = Hidden(16)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    classifier = quick(module, lr=1e-12, max_epochs=1).fit(X, y)
    fitted = classifier.net_.network.hidden.state_dict()
    for name, value in module.state_dict().items():
        assert_array_equal(value, before[name])
        assert_allclose(fitted[name], value, atol=1e-9)


@pytest.mark.parametrize(
    ("module", "shape"), [(Convolutions, (1, 8, 8)), (LastState, (8, 8))], ids=["CNN", "GRU"]
)
def test_images_and_sequences_are_learned(module, shape, digits):
    X, y, y_observed = digits
    X = X.reshape(-1, *shape)
    classifier = quick(module, max_epochs=25, lr=1e-2).fit(X, y_observed)
    assert classifier.score(X, y) > 0.9
    assert classifier.n_features_in_ == shape[0]
    with pytest.raises(ValueError, match="shape"):
        classifier.predict(X[:, :, :-1])


@pytest.mark.parametrize("noise_model", ["s", "c", None])
def test_frozen_layers_keep_their_weights(noise_model, digits):
    X, _, y = digits
    backbone = Backbone(frozen=True)
    classifier = quick(backbone, noise_model=noise_model, lr=1e-2).fit(X, y)
    network = classifier.net_.network.hidden
    for name, value in backbone.body.state_dict().items():
        assert_array_equal(network.body.state_dict()[name], value)
        assert not dict(network.body.named_parameters())[name].requires_grad
    assert not torch.equal(network.neck.weight, backbone.neck.weight)


def test_a_backbone_has_its_own_learning_rate_under_its_own_names(digits):
    X, _, y = digits
    backbone = Backbone()
    groups = [("body.*", {"lr": 1e-9}), ("noise.*", {"lr": 1e-1})]
    classifier = quick(backbone, lr=1e-2, optimizer__param_groups=groups).fit(X, y)
    fitted = classifier.net_.network.hidden
    assert_allclose(fitted.body[0].weight.detach(), backbone.body[0].weight.detach(), atol=1e-6)
    assert (fitted.neck.weight - backbone.neck.weight).abs().max() > 1e-3


@pytest.mark.parametrize("batch_size", [31, 32])
def test_batch_norm_takes_a_last_batch_of_one_row(batch_size, digits):
    X, _, y = digits
    n_rows = 3 * batch_size + 1
    module = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU())
    classifier = quick(module, batch_size=batch_size, early_stopping=False)
    assert np.isfinite(classifier.fit(X[:n_rows], y[:n_rows]).predict_proba(X[:1])).all()


def test_batch_norm_with_batches_of_one_row_says_what_to_do(digits):
    X, _, y = digits
    module = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU())
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        quick(module, batch_size=1).fit(X, y)


def test_rows_one_at_a_time_are_learned_without_batch_norm(digits):
    X, _, y = digits
    classifier = quick(Hidden, batch_size=1, max_epochs=1).fit(X[:60], y[:60])
    assert np.isfinite(classifier.predict_proba(X)).all()


def test_a_module_that_misses_arguments_says_which(digits):
    class Needy(nn.Module):
        def __init__(self, width, depth):
            super().__init__()

    X, _, y = digits
    with pytest.raises(ValueError, match=r"depth.*module__width, module__depth"):
        quick(Needy, module__width=3).fit(X, y)
