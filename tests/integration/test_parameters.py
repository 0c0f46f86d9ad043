"""Parameters of parts behave as parameters of the classifier: seen, set, copied, checked."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import EpochScoring
from torch import nn
from torch.utils.data import DataLoader

from sknoisy import NoisyLabelClassifier


class Hidden(nn.Module):
    def __init__(self, width, activation=nn.ReLU):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, width), activation())

    def forward(self, X):
        return self.layers(X)


@pytest.fixture
def data():
    rng = np.random.RandomState(0)
    X = rng.randn(80, 5).astype("float32")
    return X, (X[:, 0] > 0).astype(int)


def quick(**params):
    return NoisyLabelClassifier(**{"max_epochs": 2, "random_state": 0} | params)


ROUTED = {
    "module__width": 7,
    "optimizer__weight_decay": 0.1,
    "iterator_train__shuffle": False,
    "iterator_valid__batch_size": 3,
    "callbacks__print_log__floatfmt": ".2f",
}


@pytest.mark.parametrize(("name", "value"), ROUTED.items())
def test_a_parameter_of_a_part_is_seen_by_every_means(name, value):
    classifier = quick(module=Hidden, **{name: value})
    assert classifier.get_params()[name] == value
    assert classifier.get_params(deep=False)[name] == value
    assert clone(classifier).get_params()[name] == value
    assert pickle.loads(pickle.dumps(classifier)).get_params()[name] == value
    assert f"{name}={value!r}" in repr(classifier)
    assert quick(module=Hidden).set_params(**{name: value}).get_params()[name] == value


def test_parameters_reach_their_parts(data):
    seen = {}

    class Loader(DataLoader):
        def __init__(self, dataset, tag=None, **kwargs):
            seen.setdefault(tag, 0)
            seen[tag] += 1
            super().__init__(dataset, **kwargs)

    class Optimizer(torch.optim.SGD):
        def __init__(self, params, lr=1.0, momentum=0.0):
            seen["lr"], seen["momentum"] = lr, momentum
            super().__init__(params, lr=lr, momentum=momentum)

    classifier = quick(
        module=Hidden,
        module__width=7,
        optimizer=Optimizer,
        optimizer__momentum=0.5,
        optimizer__lr=0.25,
        iterator_train=Loader,
        iterator_train__tag="train",
        iterator_valid=Loader,
        iterator_valid__tag="valid",
    ).fit(*data)
    assert classifier.net_.network.head.in_features == 7
    assert seen["momentum"] == 0.5
    assert seen["lr"] == 0.25
    assert {"train", "valid"} < seen.keys()


def test_a_grid_tries_parameters_of_parts(data):
    grid = {"module__width": [2, 6], "optimizer__weight_decay": [0.0, 0.1]}
    search = GridSearchCV(quick(module=Hidden), grid, cv=2).fit(*data)
    assert search.best_params_.keys() == grid.keys()
    assert (
        search.best_estimator_.net_.network.head.in_features == search.best_params_["module__width"]
    )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"breadth": 3}, "breadth.*module__, optimizer__, iterator_train__"),
        ({"modul__width": 3}, "modul__width.*module__, optimizer__"),
        ({"criterion__weight": None}, "criterion__weight.*callbacks__"),
        ({"module__breadth": 3}, r"(?s)module__breadth.*It takes: module__width"),
        ({"optimizer__decay": 0.1}, "optimizer__decay: `optimizer` takes .*optimizer__betas"),
        ({"iterator_train__size": 3}, "iterator_train__size.* takes iterator_train__batch_size"),
        ({"iterator_valid__size": 3}, "iterator_valid__size.* takes iterator_valid__batch_size"),
        (
            {"iterator_valid": DataLoader, "iterator_valid__size": 3},
            "iterator_valid__size.*iterator_valid__num_workers",
        ),
        ({"callbacks__log": None}, "callbacks__log: .*callbacks__epoch_timer.*print_log"),
        ({"callbacks__log__sink": print}, "callbacks__log: .* takes .*callbacks__print_log"),
        (
            {"callbacks": [("score", EpochScoring("accuracy"))], "callbacks__score__nam": "x"},
            r"callbacks__score__nam: .* takes .*callbacks__score__name",
        ),
    ],
)
def test_an_unknown_name_is_refused_in_fit_and_the_known_ones_are_named(params, message, data):
    classifier = quick(**{"module": Hidden, "module__width": 3} | params)
    with pytest.raises(ValueError, match=message):
        classifier.fit(*data)


def test_an_unknown_name_without_a_part_is_refused_by_set_params():
    with pytest.raises(ValueError, match="Invalid parameter 'breadth'"):
        quick().set_params(breadth=3)


def test_setting_a_parameter_of_a_named_callback_counts(data):
    score = EpochScoring("accuracy", on_train=True, lower_is_better=False, name="before")
    classifier = quick(callbacks=[("score", score)], callbacks__score__name="after").fit(*data)
    assert "after" in classifier.history_[-1]
    assert "before" not in classifier.history_[-1]
    assert score.name == "before"
    classifier.set_params(callbacks__score=None)
    with pytest.raises(ValueError, match="callback score which does not exist"):
        classifier.fit(*data)


def test_a_pattern_of_a_parameter_group_that_matches_nothing_is_refused(data):
    groups = [("layrs.*", {"lr": 0.1})]
    classifier = quick(module=Hidden, module__width=3, optimizer__param_groups=groups)
    with pytest.raises(ValueError, match=r"'layrs\.\*'.*layers\.0\.weight.*noise\.bias"):
        classifier.fit(*data)
