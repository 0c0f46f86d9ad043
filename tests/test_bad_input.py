"""What the classifier refuses, and that each message names the parameter and what came."""

import re
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from torch import nn

from sknoisy import NoisyLabelClassifier

X, y = make_blobs(60, centers=3, random_state=0)
X = X.astype(np.float32)
IDENTITY = np.eye(3)


class Returns(nn.Module):
    """A module that does to its batch what it is told."""

    def __init__(self, function=None):
        super().__init__()
        self.function = function

    def forward(self, X):
        return self.function(X)


def with_entry(value):
    """Return the data with one entry replaced."""
    changed = X.copy()
    changed[7, 1] = value
    return changed


def fit(X=X, y=y, sample_weight=None, **params):
    params = {"random_state": 0, "max_epochs": 2} | params
    return NoisyLabelClassifier(**params).fit(X, y, sample_weight=sample_weight)


def check_cases(cases):
    """Parametrise a test by rows of arguments and expected message."""
    ids = [f"{index}-{next(iter(case[0]), 'none')}" for index, case in enumerate(cases)]
    return pytest.mark.parametrize(("arguments", "message"), cases, ids=ids)


def invalid(name, expected, came):
    message = f"The '{name}' parameter of NoisyLabelClassifier must be {expected} Got {came} "
    return message + "instead"


@check_cases(
    [
        ({"noise_model": "x"}, invalid("noise_model", r"a str among {.*} or None\.", "'x'")),
        ({"noise_model": True}, invalid("noise_model", r"a str among {.*} or None\.", "True")),
        ({"method": "sgd"}, invalid("method", r"a str among {.*}\.", "'sgd'")),
        ({"method": None}, invalid("method", r"a str among {.*}\.", "None")),
        (
            {"transition_init": "anchor"},
            invalid("transition_init", r"a str among {.*} or an array-like\.", "'anchor'"),
        ),
        ({"learn_transition": "yes"}, invalid("learn_transition", ".*bool.*", "'yes'")),
        ({"transition_prior": -1}, invalid("transition_prior", r".*\[0.0, inf\)\.", "-1")),
        ({"transition_prior": np.inf}, invalid("transition_prior", r".*\[0.0, inf\)\.", "inf")),
        ({"volume_penalty": -0.1}, invalid("volume_penalty", r".*\[0.0, inf\)\.", "-0.1")),
        ({"volume_penalty": np.nan}, invalid("volume_penalty", r".*\[0.0, inf\)\.", "nan")),
        ({"max_epochs": 0}, invalid("max_epochs", r".*'auto'.*\[1, inf\)\.", "0")),
        ({"max_epochs": 1.5}, invalid("max_epochs", r".*'auto'.*an int .*\.", "1.5")),
        ({"batch_size": 0}, invalid("batch_size", r".*'auto'.*\[1, inf\)\.", "0")),
        ({"lr": 0}, invalid("lr", r"a float in the range \(0.0, inf\)\.", "0")),
        ({"lr": "fast"}, invalid("lr", r"a float in the range \(0.0, inf\)\.", "'fast'")),
        ({"optimizer": "Adam"}, invalid("optimizer", r"a callable\.", "'Adam'")),
        ({"iterator_train": 3}, invalid("iterator_train", r"a callable or None\.", "3")),
        ({"module": "mlp"}, invalid("module", r".*Module', a callable or None\.", "'mlp'")),
        ({"hidden_layer_sizes": 5}, invalid("hidden_layer_sizes", r"an array-like\.", "5")),
        ({"dropout": 1.0}, invalid("dropout", r".*\[0.0, 1.0\)\.", "1.0")),
        ({"device": 3}, invalid("device", ".*'str'.*", "3")),
        ({"compile": "no"}, invalid("compile", ".*bool.*", "'no'")),
        ({"callbacks": "lr"}, invalid("callbacks", r".*'list'.* or None\.", "'lr'")),
        ({"warm_start": "yes"}, invalid("warm_start", ".*bool.*", "'yes'")),
        ({"verbose": -1}, invalid("verbose", ".*", "-1")),
        ({"max_em_iter": 0}, invalid("max_em_iter", r".*\[1, inf\)\.", "0")),
        ({"tol": -1}, invalid("tol", r".*\[0.0, inf\)\.", "-1")),
        ({"early_stopping": "never"}, invalid("early_stopping", ".*'auto'.*bool.*", "'never'")),
        ({"validation_fraction": 0}, invalid("validation_fraction", r".*\(0.0, 1.0\)\.", "0")),
        ({"validation_fraction": 1.0}, invalid("validation_fraction", r".*\(0.0, 1.0\)\.", "1.0")),
        ({"n_iter_no_change": 0}, invalid("n_iter_no_change", r".*\[1, inf\)\.", "0")),
        ({"class_weight": "even"}, invalid("class_weight", ".*'balanced'.*", "'even'")),
        ({"random_state": "seed"}, invalid("random_state", ".*", "'seed'")),
    ]
)
def test_parameters_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(**arguments)


@check_cases(
    [
        (
            {"noise_model": "c", "method": "em"},
            "method='em' needs noise_model='s', got noise_model='c': .* ignores the features",
        ),
        (
            {"learn_transition": False},
            "learn_transition=False needs noise_model='s' and .*; got .*transition_init='auto'",
        ),
        (
            {"learn_transition": False, "transition_init": IDENTITY, "noise_model": "c"},
            "learn_transition=False needs noise_model='s' and .*; got noise_model='c'",
        ),
        (
            {"learn_transition": False, "transition_init": IDENTITY, "noise_model": None},
            "learn_transition=False needs noise_model='s' and .*; got noise_model=None",
        ),
        (
            {"transition_init": np.eye(2)},
            r"`transition_init` must have shape \(3, 3\), .* got shape \(2, 2\)",
        ),
        (
            {"transition_init": [0.2, 0.3, 0.5]},
            r"`transition_init` must have shape \(3, 3\), .* got shape \(3,\)",
        ),
        (
            {"transition_init": [[1.5, -0.5, 0], [0, 1, 0], [0, 0, 1]]},
            "`transition_init` must be finite and non-negative; got values from -0.5 to 1.5",
        ),
        (
            {"transition_init": np.full((3, 3), np.nan)},
            "`transition_init` must be finite and non-negative; got values from nan",
        ),
        (
            {"transition_init": [[1, np.inf, 0], [0, 1, 0], [0, 0, 1]]},
            "`transition_init` must be finite and non-negative; got values from 0 to inf",
        ),
        (
            {"transition_init": [[0.9, 0.3, 0], [0.1, 0.7, 0], [0, 0, 1]]},
            r"`transition_init` must have rows .* that sum to one; got sums from 0.8 to 1.2",
        ),
        ({"transition_init": [["a"] * 3] * 3}, "`transition_init` must be a matrix of numbers"),
        (
            {"transition_init": np.eye(2), "noise_model": None},
            r"`transition_init` must have shape \(3, 3\), .* got shape \(2, 2\)",
        ),
        (
            {"class_weight": {0: 1.0, 7: 2.0}},
            r"The classes, \[1, 2\], are not in class_weight",
        ),
        (
            {"widht": 3},
            r"Unknown parameter\(s\) widht: .* one of module__, optimizer__, .*, callbacks__",
        ),
        ({"modul__width": 3}, r"Unknown parameter\(s\) modul__width: .* one of module__, "),
        ({"optimizer__momentun": 0.9}, "optimizer__momentun.* takes optimizer__amsgrad"),
    ]
)
def test_parameters_that_do_not_fit_together_are_refused(arguments, message):
    with pytest.raises((ValueError, TypeError), match=re.compile(message, re.DOTALL)):
        fit(**arguments)


def hidden_of(came):
    return rf"`module` must map a batch of 2 rows to .* shape \(2, n_hidden\); it returned {came}"


@check_cases(
    [
        ({"module": Returns(lambda X: X[:, 0])}, hidden_of(r"torch.float32 of \(2,\)")),
        ({"module": Returns(lambda X: X[:, None])}, hidden_of(r"torch.float32 of \(2, 1, 2\)")),
        ({"module": Returns(lambda X: X[:1])}, hidden_of(r"torch.float32 of \(1, 2\)")),
        ({"module": Returns(lambda X: X.long())}, hidden_of(r"torch.int64 of \(2, 2\)")),
        ({"module": Returns(lambda X: (X, X))}, hidden_of("tuple")),
        ({"module": Returns(lambda X: X.numpy())}, hidden_of("ndarray")),
        ({"module": Returns(lambda X: None)}, hidden_of("NoneType")),
        (
            {"module": nn.Linear(7, 3)},
            r"`module` failed on a batch of shape \(2, 2\) .*: mat1 and mat2 shapes cannot",
        ),
        (
            {"module": nn.Conv2d(1, 2, 3)},
            r"`module` failed on a batch of shape \(2, 2\) .*: Expected 3D .* got input of size",
        ),
        (
            {"module": lambda: 3},
            "`module` must be an nn.Module, .* or a callable that returns one; calling it gave int",
        ),
        (
            {"module": nn.Linear, "module__width": 3},
            r"`module` Linear could not be built from \(module__width\): .* It takes: module__in",
        ),
        (
            {"module": nn.Identity(), "module__width": 3},
            "`module` is an instance, its parameters cannot be set: got module__width",
        ),
        (
            {"module__width": 3},
            "Parameters for `module` were given but `module` is None: module__width",
        ),
    ]
)
def test_modules_that_return_no_hidden_layer_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        fit(**arguments)


@check_cases(
    [
        ({"X": with_entry(np.nan)}, "Input X contains NaN"),
        ({"X": with_entry(np.inf)}, r"Input X contains infinity or .* dtype\('float32'\)"),
        ({"X": sparse.csr_array(with_entry(np.nan))}, "Input X contains NaN"),
        ({"X": [*X[1:].astype(int).tolist(), [10**300, 1]]}, "Input X .* too large for dtype"),
        ({"X": X[:, 0]}, "Expected 2D array, got 1D array instead"),
        ({"X": None}, "Expected 2D array, got scalar array instead"),
        ({"X": X[:0], "y": y[:0]}, r"Found array with 0 sample\(s\) .* a minimum of 1"),
        ({"X": X[:, :0]}, r"Found array with 0 feature\(s\) .* a minimum of 1"),
        ({"X": np.full((60, 2), "a")}, "could not convert string to float.*'a'"),
        ({"X": X.astype(complex)}, "Complex data not supported"),
        ({"X": X[:-1]}, r"inconsistent numbers of samples: \[59, 60\]"),
        ({"y": y[:-1]}, r"inconsistent numbers of samples: \[60, 59\]"),
        ({"y": None}, "requires y to be passed, but the target y is None"),
        ({"y": np.eye(3, dtype=int)[y]}, r"y should be a 1d array, got .* shape \(60, 3\)"),
        ({"y": y + 0.5}, "Unknown label type: continuous"),
        ({"y": np.where(y == 0, np.nan, y)}, "Input y contains NaN"),
        ({"y": np.where(y == 0, np.inf, y)}, "Input y contains infinity"),
        ({"y": pd.Series(["a", None, "b"] * 20, dtype=object)}, "uniformly strings .*NoneType"),
        ({"y": np.array(["a", 1, "b"] * 20, dtype=object)}, "`y` must be .* got int, str"),
        ({"y": np.zeros(60)}, r"`y` must have at least 2 classes .* got 1 class: \[0.0\]"),
        ({"X": X[:1], "y": y[:1]}, r"`y` must have at least 2 classes .* got 1 class: \[1\]"),
        (
            {"sample_weight": (y == 2).astype(float)},
            r"`y` must have at least 2 classes \(among the rows of positive weight\); .* \[2\]",
        ),
        ({"sample_weight": np.zeros(60)}, "Sample weights must contain at least one non-zero"),
        ({"sample_weight": -np.ones(60)}, "Negative values in data passed to `sample_weight`"),
        ({"sample_weight": np.full(60, np.nan)}, "Input sample_weight contains NaN"),
        ({"sample_weight": np.full(60, np.inf)}, "Input sample_weight contains infinity"),
        ({"sample_weight": np.ones(3)}, r"sample_weight.shape == \(3,\), expected \(60,\)"),
        ({"sample_weight": np.ones((60, 1))}, "Sample weights must be 1D .* got 2D"),
        ({"sample_weight": "balanced"}, "`sample_weight` must be numbers, one for each row"),
    ]
)
def test_data_that_cannot_be_learned_from_is_refused(arguments, message):
    with pytest.raises((ValueError, TypeError), match=re.compile(message, re.DOTALL)):
        fit(**arguments)


@cache
def fitted(frame=False):
    return fit(pd.DataFrame(X, columns=["a", "b"]) if frame else X)


def predict(X, frame=False):
    return fitted(frame).predict(X)


def label_posterior(X, y):
    return fitted().label_posterior(X, y)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        (predict, (np.ones((2, 3)),), "X has 3 features, but NoisyLabelClassifier is expecting 2"),
        (
            predict,
            (np.ones((2, 2, 1)),),
            r"X has rows of shape \(2, 1\), but .* fitted on rows of shape \(2,\)",
        ),
        (predict, ([1.0, 2.0],), "Expected 2D array, got 1D array instead"),
        (predict, (X[:0],), r"Found array with 0 sample\(s\) .* a minimum of 1"),
        (predict, ([[np.nan, 1.0]],), "Input X contains NaN"),
        (predict, ([[np.inf, 1.0]],), "Input X contains infinity"),
        (
            predict,
            (pd.DataFrame(X, columns=["a", "c"]), True),
            r"feature names should match .*unseen at fit time:\n- c\n.*now missing:\n- b",
        ),
        (
            predict,
            (pd.DataFrame(X, columns=["b", "a"]), True),
            "feature names should match .* in the same order",
        ),
        (label_posterior, (X, np.full(60, 9)), r"`y` must hold .* \[0, 1, 2\]; got \[9\]"),
        (label_posterior, (X, np.full(60, "a")), r"`y` must hold .* \[0, 1, 2\]; got \['a'\]"),
        (label_posterior, (X, y[:-1]), r"inconsistent numbers of samples: \[60, 59\]"),
        (label_posterior, (X, y + 0.5), "Unknown label type: continuous"),
        (label_posterior, (X, None), r"y should be a 1d array, got an array of shape \(\)"),
    ],
)
def test_other_data_than_in_fit_is_refused(method, arguments, message):
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        method(*arguments)


@pytest.mark.parametrize(
    "method",
    ["predict", "predict_proba", "predict_log_proba", "predict_noisy_proba", "predict_transition"],
)
def test_nothing_is_predicted_before_fit(method):
    with pytest.raises(NotFittedError, match="NoisyLabelClassifier instance is not fitted yet"):
        getattr(NoisyLabelClassifier(), method)(X)


def test_nothing_is_said_of_labels_before_fit():
    with pytest.raises(NotFittedError, match="NoisyLabelClassifier instance is not fitted yet"):
        NoisyLabelClassifier().label_posterior(X, y)
    with pytest.raises(NotFittedError, match="NoisyLabelClassifier instance is not fitted yet"):
        NoisyLabelClassifier().score(X, y)


def test_a_name_that_is_no_parameter_is_refused_when_it_is_set():
    with pytest.raises(ValueError, match=r"Invalid parameter 'widht' for estimator .* Valid"):
        NoisyLabelClassifier().set_params(widht=3)


# --- Training that diverges ---------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:EM did not converge")
@pytest.mark.parametrize(
    "params",
    [
        {"noise_model": None},
        {},
        {"noise_model": "c"},
        {"method": "em"},
        {"early_stopping": True},
        {"transition_init": "confusion"},
        {"transition_init": "cluster"},
    ],
    ids=str,
)
@pytest.mark.parametrize("steps", [1, 20])
def test_training_that_diverges_stops_with_advice(params, steps):
    X, y = make_blobs(120, centers=3, random_state=0)
    message = r"became (nan|inf) in epoch \d+ \(stage '\w+'\)\. Lower the learning rate `lr` "
    message += r"\(now 1e\+300\) or scale X, for instance with StandardScaler"
    with pytest.raises(ValueError, match=message):
        fit(X * 1e10, y, lr=1e300, max_epochs=steps, max_em_iter=steps, **params)


def test_a_module_that_returns_nan_stops_the_fit():
    with pytest.raises(ValueError, match=r"became nan before .* `lr` .* scale X"):
        fit(module=Returns(lambda X: X * np.nan))


def test_a_refused_fit_leaves_the_fitted_network_as_it_was():
    estimator = fit()
    proba = estimator.predict_proba(X)
    with pytest.raises(ValueError, match="became nan"):
        estimator.set_params(lr=1e30, warm_start=True, max_epochs=5).fit(X * 1e10, y)
    np.testing.assert_array_equal(estimator.predict_proba(X), proba)
