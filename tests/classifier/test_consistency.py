"""Fitted classifiers whose parts do not fit each other are refused when they are read."""

import copy

import numpy as np
import pytest
import skops.io
import torch
from sklearn.datasets import make_blobs
from torch import nn

from sknoisy import NoisyLabelClassifier, load_model

X, y = make_blobs(90, n_features=4, centers=3, random_state=0)


class Convolutions(nn.Module):
    """Weights of several kinds, so that each can be of another shape than it says."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 3)
        self.convolution = nn.Conv1d(3, 2, 2)
        self.norm = nn.BatchNorm1d(2)
        self.out = nn.Linear(6, 5)

    def forward(self, X):
        rows = self.table(X.abs().clamp(max=9).long()).mT
        return self.out(self.norm(self.convolution(rows)).flatten(1))


OWN = [f"{__name__}.Convolutions", "torch.nn.modules.sparse.Embedding"]
OWN += ["torch.nn.modules.conv.Conv1d", "torch.nn.modules.batchnorm.BatchNorm1d"]


@pytest.fixture(scope="module")
def fitted():
    params = {
        "s": {},
        "plain": {"noise_model": None},
        "sparse s": {"n_noise_targets": 2},
        "c": {"noise_model": "c"},
        "sparse c": {"noise_model": "c", "n_noise_targets": 2},
        "module": {"module": Convolutions},
    }
    common = {"max_epochs": 1, "select_noise_model": False, "random_state": 0}
    return {
        name: NoisyLabelClassifier(**common, **given).fit(X, y) for name, given in params.items()
    }


def parameter(*shape, dtype=torch.float64):
    return nn.Parameter(torch.zeros(*shape, dtype=dtype))


def set_at(path, value):
    """Return what sets an attribute of a part of a classifier."""

    def change(classifier):
        *owners, name = path.split(".")
        owner = classifier
        for part in owners:
            owner = getattr(owner, part)
        owner.__dict__.get("_parameters", {}).pop(name, None)
        owner.__dict__.get("_buffers", {}).pop(name, None)
        if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
            owner.register_buffer(name, value)
        else:
            setattr(owner, name, value)

    return change


NETWORK = "net_.module_"
BROKEN = {
    "a wider head": ("s", set_at(f"{NETWORK}.head", nn.Linear(101, 3).double())),
    "a head of more classes": ("s", set_at(f"{NETWORK}.head", nn.Linear(100, 4).double())),
    "a head that is no layer": ("plain", set_at(f"{NETWORK}.head", nn.ReLU())),
    "weights of another shape": ("s", set_at(f"{NETWORK}.head.weight", parameter(3, 99))),
    "a bias of another shape": ("s", set_at(f"{NETWORK}.head.bias", parameter(4))),
    "another type of float": (
        "s",
        set_at(f"{NETWORK}.head", nn.Linear(100, 3)),
    ),
    "integers as weights": (
        "s",
        set_at(f"{NETWORK}.head.weight", torch.zeros(3, 100, dtype=torch.int64)),
    ),
    "no weights": ("s", set_at(f"{NETWORK}.head.weight", None)),
    "hidden layers for other rows": (
        "s",
        lambda c: set_at(f"{NETWORK}.hidden.1", nn.Linear(5, 100).double())(c),
    ),
    "hidden weights of another shape": (
        "c",
        set_at(f"{NETWORK}.hidden.1.weight", parameter(99, 4)),
    ),
    "noise of more classes": ("s", set_at(f"{NETWORK}.noise.bias", parameter(4, 4))),
    "noise of fewer classes": ("sparse s", set_at(f"{NETWORK}.noise.bias", parameter(2, 2))),
    "another start of the noise": ("s", set_at(f"{NETWORK}.noise.start", torch.eye(4))),
    "noise of other features": ("c", set_at(f"{NETWORK}.noise.weight", parameter(3, 3, 7))),
    "noise into no class": ("sparse s", set_at(f"{NETWORK}.noise.targets", torch.full((3, 2), 3))),
    "columns that are not there": (
        "sparse c",
        set_at(f"{NETWORK}.noise.columns", torch.full((3, 3), -1)),
    ),
    "noise that is no layer": ("s", set_at(f"{NETWORK}.noise", nn.Identity())),
    "an embedding of another size": (
        "module",
        set_at(f"{NETWORK}.hidden.table.weight", parameter(9, 3)),
    ),
    "a convolution of another size": (
        "module",
        set_at(f"{NETWORK}.hidden.convolution.weight", parameter(2, 3, 3)),
    ),
    "averages of another size": (
        "module",
        set_at(f"{NETWORK}.hidden.norm.running_mean", torch.zeros(3)),
    ),
    "a layer of the user's without weights": (
        "module",
        set_at(f"{NETWORK}.hidden.out.weight", None),
    ),
    "more classes": ("s", set_at("classes_", np.arange(4))),
    "one class twice": ("s", set_at("classes_", np.array([0, 1, 1]))),
    "classes that are no array": ("plain", set_at("classes_", {"a": 1, "b": 2, "c": 3})),
    "a matrix of other classes": ("s", set_at("transition_matrix_", np.eye(4))),
    "a matrix of no distributions": ("s", set_at("transition_matrix_", np.ones((3, 3)))),
    "a matrix with NaN": ("c", set_at("initial_transition_matrix_", np.full((3, 3), np.nan))),
    "a prior of other classes": ("s", set_at("class_prior_", np.full(4, 0.25))),
    "weights of other classes": ("s", set_at("_log_class_weight", np.zeros(2))),
    "more features": ("s", set_at("n_features_in_", 5)),
    "longer rows": ("s", set_at("_row_shape", (5,))),
    "names of other features": ("s", set_at("feature_names_in_", np.array(["a"], dtype=object))),
    "no net": ("s", set_at("net_", {"a": 1})),
    "a device that is none": ("s", set_at("net_.device", "nonsense")),
    "a device without numbers": ("s", set_at("net_.device", "meta")),
}


@pytest.mark.filterwarnings("ignore::skorch.exceptions.DeviceWarning")
@pytest.mark.parametrize(("kind", "change"), BROKEN.values(), ids=BROKEN)
def test_parts_that_do_not_fit_are_refused(kind, change, fitted, tmp_path):
    classifier = copy.deepcopy(fitted[kind])
    change(classifier)
    skops.io.dump(classifier, tmp_path / "model.skops")
    with pytest.raises(ValueError, match=r"`path` must be a whole file.*(fit each|broken|device)"):
        load_model(tmp_path / "model.skops", trusted=[*OWN, "torch.nn.modules.linear.Identity"])


@pytest.mark.parametrize("kind", ["s", "plain", "sparse s", "c", "sparse c", "module"])
def test_what_fits_is_loaded_and_copied(kind, fitted, tmp_path):
    skops.io.dump(fitted[kind], tmp_path / "model.skops")
    for again in (load_model(tmp_path / "model.skops", trusted=OWN), copy.deepcopy(fitted[kind])):
        np.testing.assert_array_equal(
            again.predict_noisy_proba(X), fitted[kind].predict_noisy_proba(X)
        )


def test_no_memory_is_taken_for_rows_that_the_weights_do_not_have(fitted, tmp_path):
    classifier = copy.deepcopy(fitted["s"])
    classifier._row_shape = (10**15,)
    classifier.n_features_in_ = 10**15
    skops.io.dump(classifier, tmp_path / "model.skops")
    with pytest.raises(ValueError, match="hidden layers"):
        load_model(tmp_path / "model.skops")
