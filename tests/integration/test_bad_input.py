"""Refusals: each message names the parameter, what was expected and what came."""

import re
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from torch import nn

from sknoisy import NoisyLabelClassifier, noise
from sknoisy.metrics import noise_corrected_accuracy, transition_matrix_error

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


# --- Calls --------------------------------------------------------------------------------------


def fit(X=X, y=y, sample_weight=None, **params):
    params = {"random_state": 0, "max_epochs": 2} | params
    return NoisyLabelClassifier(**params).fit(X, y, sample_weight=sample_weight)


def partial_fit(X=X, y=y, classes=(0, 1, 2), sample_weight=None, **params):
    classifier = NoisyLabelClassifier(random_state=0, **params)
    return classifier.partial_fit(X, y, classes=classes, sample_weight=sample_weight)


def go_on(X=X, y=y, classes=None):
    return partial_fit().partial_fit(X, y, classes=classes)


def fit_again(X=X, y=y):
    return fit(warm_start=True).fit(X, y)


@cache
def fitted(frame=False):
    return fit(pd.DataFrame(X, columns=["a", "b"]) if frame else X)


def predict(X):
    return fitted().predict(X)


def predict_frame(X):
    return fitted(frame=True).predict(pd.DataFrame(np.ones((3, len(X))), columns=list(X)))


def posterior(X=X, y=y):
    return fitted().label_posterior(X, y)


def matrix_error(estimated, true=IDENTITY):
    return transition_matrix_error(estimated, true)


def accuracy(y_observed=(0, 1, 1), y_pred=(0, 1, 0), transition_matrix=np.eye(2), **params):  # noqa: B008
    return noise_corrected_accuracy(y_observed, y_pred, transition_matrix, **params)


def corrupt(y=(0, 1, 1), transition_matrix=np.eye(2), **params):  # noqa: B008
    return noise.corrupt_labels(y, transition_matrix, **params)


# --- The table: a call, its arguments, the parameter to blame, what was expected, what came -----

STRINGS = r"a str among {.*}"
SHAPE_3 = r"shape \(3, 3\), a row for each true class and a column"
HIDDEN = r"map a batch of 2 rows to a floating point tensor of shape \(2, n_hidden\)"
STOCHASTIC = "rows .true classes. that sum to one"
FINITE = "hold finite numbers, a row for each sample"
AS_IN_FIT = "hold finite numbers, rows like those of fit"
LABELS = "hold one label for each row of X, uniformly strings or numbers"
WEIGHTS = "hold a number for each row, none negative and not all zero"
BATCHES = "be a class of iterators over batches"

BAD_INPUTS = [
    # Parameters out of range
    (fit, {"noise_model": "x"}, "noise_model", rf"{STRINGS} or None", "'x'"),
    (fit, {"noise_model": True}, "noise_model", rf"{STRINGS} or None", "True"),
    (fit, {"method": "sgd"}, "method", STRINGS, "'sgd'"),
    (fit, {"method": None}, "method", STRINGS, "None"),
    (fit, {"transition_init": "anchor"}, "transition_init", f"{STRINGS} or an arr", "'anchor'"),
    (fit, {"transition_init": None}, "transition_init", rf"{STRINGS} or an array", "None"),
    (fit, {"learn_transition": "yes"}, "learn_transition", "an instance of 'bool'", "'yes'"),
    (fit, {"transition_prior": -1}, "transition_prior", r"\[0.0, inf\)", "-1"),
    (fit, {"transition_prior": np.inf}, "transition_prior", r"\[0.0, inf\)", "Got inf"),
    (fit, {"volume_penalty": -0.1}, "volume_penalty", r"\[0.0, inf\)", "-0.1"),
    (fit, {"volume_penalty": np.nan}, "volume_penalty", r"\[0.0, inf\)", "nan"),
    (fit, {"max_epochs": 0}, "max_epochs", r"'auto'.*\[1, inf\)", "0"),
    (fit, {"max_epochs": 1.5}, "max_epochs", r"'auto'.*an int", "1.5"),
    (fit, {"batch_size": 0}, "batch_size", r"'auto'.*\[1, inf\)", "0"),
    (fit, {"batch_size": "all"}, "batch_size", r"'auto'.*\[1, inf\)", "'all'"),
    (fit, {"lr": 0}, "lr", r"a float in the range \(0.0, inf\)", "0"),
    (fit, {"lr": "fast"}, "lr", r"a float in the range \(0.0, inf\)", "'fast'"),
    (fit, {"lr": np.nan}, "lr", r"a float in the range \(0.0, inf\)", "nan"),
    (fit, {"optimizer": "Adam"}, "optimizer", "a callable", "'Adam'"),
    (fit, {"iterator_train": 3}, "iterator_train", "a callable or None", "3"),
    (fit, {"iterator_valid": 3}, "iterator_valid", "a callable or None", "3"),
    (fit, {"module": "mlp"}, "module", ".*Module', a callable or None", "'mlp'"),
    (fit, {"hidden_layer_sizes": 5}, "hidden_layer_sizes", "an array-like", "5"),
    (fit, {"hidden_layer_sizes": [0]}, "hidden_layer_sizes", "integers of at least 1", r"\[0\]"),
    (fit, {"hidden_layer_sizes": [2.5]}, "hidden_layer_sizes", "integers of", r"\[2.5\]"),
    (fit, {"hidden_layer_sizes": [True]}, "hidden_layer_sizes", "integers of", r"\[True\]"),
    (fit, {"dropout": 1.0}, "dropout", r"\[0.0, 1.0\)", "Got 1.0"),
    (fit, {"device": 3}, "device", "an instance of 'str'", "3"),
    (fit, {"device": "quantum"}, "device", "one that torch can compute on here", "'quantum'"),
    (fit, {"device": "cuda:99"}, "device", "one that torch can compute on here", "'cuda:99'"),
    (fit, {"compile": "no"}, "compile", "an instance of 'bool'", "'no'"),
    (fit, {"callbacks": "lr"}, "callbacks", "'list'.* or None", "'lr'"),
    (fit, {"callbacks": [3]}, "callbacks", "skorch callbacks", "got 3"),
    (fit, {"callbacks": [("a", object)]}, "callbacks", "skorch callbacks", "'object'"),
    (fit, {"warm_start": "yes"}, "warm_start", "an instance of 'bool'", "'yes'"),
    (fit, {"verbose": -1}, "verbose", r"\[0, inf\)", "-1"),
    (fit, {"max_em_iter": 0}, "max_em_iter", r"\[1, inf\)", "Got 0"),
    (fit, {"tol": -1}, "tol", r"\[0.0, inf\)", "-1"),
    (fit, {"early_stopping": "never"}, "early_stopping", "'auto'.*bool", "'never'"),
    (fit, {"validation_fraction": 0}, "validation_fraction", r"\(0.0, 1.0\)", "Got 0"),
    (fit, {"validation_fraction": 1.0}, "validation_fraction", r"\(0.0, 1.0\)", "Got 1.0"),
    (fit, {"n_iter_no_change": 0}, "n_iter_no_change", r"\[1, inf\)", "Got 0"),
    (fit, {"class_weight": "even"}, "class_weight", "'balanced'", "'even'"),
    (fit, {"random_state": "seed"}, "random_state", r"an int in the range \[0,", "'seed'"),
    (fit, {"random_state": -1}, "random_state", r"an int in the range \[0,", "-1"),
    (fit, {"random_state": np.random.default_rng(0)}, "random_state", "an int", "Generator"),
    # Parameters that do not fit together
    (fit, {"noise_model": "c", "method": "em"}, "method", "noise_model='s'", "noise_model='c'"),
    (
        fit,
        {"learn_transition": False},
        "learn_transition",
        "the known matrix as `transition_init`",
        "transition_init='auto'",
    ),
    *[
        (
            fit,
            {"learn_transition": False, "transition_init": IDENTITY, "noise_model": model},
            "learn_transition",
            "needs noise_model='s'",
            f"got noise_model={model!r}",
        )
        for model in ("c", None)
    ],
    *[
        (fit, {"transition_init": np.eye(2)} | more, "transition_init", SHAPE_3, r"\(2, 2\)")
        for more in ({}, {"noise_model": None})
    ],
    (fit, {"transition_init": [0.2, 0.3, 0.5]}, "transition_init", SHAPE_3, r"got shape \(3,\)"),
    (fit, {"transition_init": []}, "transition_init", SHAPE_3, r"got shape \(0,\)"),
    (
        fit,
        {"transition_init": [[1.5, -0.5, 0], [0, 1, 0], [0, 0, 1]]},
        "transition_init",
        "finite and non-negative",
        "from -0.5 to 1.5",
    ),
    (
        fit,
        {"transition_init": np.full((3, 3), np.nan)},
        "transition_init",
        "finite and non-negative",
        "from nan",
    ),
    (
        fit,
        {"transition_init": [[1, np.inf, 0], [0, 1, 0], [0, 0, 1]]},
        "transition_init",
        "finite and non-negative",
        "to inf",
    ),
    (
        fit,
        {"transition_init": [[0.9, 0.3, 0], [0.1, 0.7, 0], [0, 0, 1]]},
        "transition_init",
        STOCHASTIC,
        "from 0.8 to 1.2",
    ),
    (fit, {"transition_init": [["a"] * 3] * 3}, "transition_init", "a matrix of numbers", "'a'"),
    (fit, {"class_weight": {0: 1.0, 7: 2.0}}, "class_weight", "weight for each", r"\[1, 2\]"),
    (fit, {"class_weight": {0: "a", 1: 1, 2: 1}}, "class_weight", "weight for each", "'a'"),
    (fit, {"class_weight": {0: -1, 1: 1, 2: 1}}, "class_weight", "not negative", "{0: -1"),
    (fit, {"class_weight": dict.fromkeys(range(3), 0)}, "class_weight", "not all zero", "{0: 0"),
    (fit, {"widht": 3}, "widht", "must begin with one of module__, .*callbacks__", "widht"),
    (fit, {"modul__width": 3}, "modul__width", "one of module__, ", "modul__width"),
    # Parts that cannot be made
    (fit, {"optimizer__momentun": 0.9}, "optimizer", "takes optimizer__amsgrad", "momentun"),
    (fit, {"optimizer__betas": (2, 2)}, "optimizer", "takes lr, optimizer__betas", "beta .* 2"),
    (fit, {"optimizer": dict}, "optimizer", "a class of torch optimisers that takes lr", "dict"),
    (fit, {"optimizer": lambda p, lr: 3}, "optimizer", "a class of torch optimisers", "made int"),
    (fit, {"optimizer": lambda p: 3}, "optimizer", "that takes lr", "unexpected .* 'lr'"),
    (fit, {"optimizer__param_groups": 3}, "optimizer__param_groups", "pairs of a pattern", "3"),
    (
        fit,
        {"optimizer__param_groups": [("x*", {})]},
        "optimizer__param_groups",
        "there are .*head.weight",
        r"'x\*'",
    ),
    (fit, {"iterator_train": lambda d, **k: 3}, "iterator_train", BATCHES, "made int"),
    (fit, {"iterator_valid": lambda d, **k: 3}, "iterator_valid", BATCHES, "made int"),
    (fit, {"iterator_train": lambda d, **k: []}, "iterator_train", BATCHES, "no batch of 60"),
    (fit, {"iterator_train": lambda d: []}, "iterator_train", BATCHES, "unexpected .*batch_size"),
    (fit, {"iterator_train__batch_size": 0}, "iterator_train", "batch_size.* >= 1", "== 0"),
    (fit, {"iterator_valid__batch_size": "a"}, "iterator_valid", "instance of int", "not str"),
    (fit, {"iterator_train__suffle": 0}, "iterator_train", "iterator_train__shuffle", "suffle"),
    (fit, {"callbacks__a__b": 3}, "callbacks", "takes callbacks__epoch_timer", "callbacks__a"),
    (fit, {"module": Returns(lambda X: X[:, 0])}, "module", HIDDEN, r"torch.float32 of \(2,\)"),
    (fit, {"module": Returns(lambda X: X[:, None])}, "module", HIDDEN, r"of \(2, 1, 2\)"),
    (fit, {"module": Returns(lambda X: X[:1])}, "module", HIDDEN, r"of \(1, 2\)"),
    (fit, {"module": Returns(lambda X: X.long())}, "module", HIDDEN, r"torch.int64 of \(2, 2\)"),
    (fit, {"module": Returns(lambda X: (X, X))}, "module", HIDDEN, "tuple"),
    (fit, {"module": Returns(lambda X: X.numpy())}, "module", HIDDEN, "ndarray"),
    (fit, {"module": Returns(lambda X: None)}, "module", HIDDEN, "NoneType"),
    (fit, {"module": nn.Linear(7, 3)}, "module", r"shape \(2, 2\)", "mat1 and mat2 shapes cannot"),
    (fit, {"module": nn.Conv2d(1, 2, 3)}, "module", "Expected 3D", r"shape \(2, 2\)"),
    (
        fit,
        {"module": lambda: 3},
        "module",
        "an nn.Module, .* callable that returns one",
        "gave int",
    ),
    (fit, {"module": nn.Linear, "module__width": 3}, "module", "takes: module__in", "__width"),
    (fit, {"module": nn.Identity(), "module__width": 3}, "module", "Pass the class", "__width"),
    (fit, {"module__width": 3}, "module", "set by `hidden_layer_sizes`", "module__width"),
    # Data that cannot be learned from
    (fit, {"X": with_entry(np.nan)}, "X", FINITE, "NaN"),
    (fit, {"X": with_entry(np.inf)}, "X", FINITE, r"infinity or .* dtype\('float32'\)"),
    (fit, {"X": X * [np.inf, -np.inf]}, "X", FINITE, "infinity"),
    (fit, {"X": sparse.csr_array(with_entry(np.nan))}, "X", FINITE, "NaN"),
    (fit, {"X": [*X[1:].astype(int).tolist(), [10**300, 1]]}, "X", FINITE, "too large for dtype"),
    (fit, {"X": X[:, 0]}, "X", FINITE, "1D array instead"),
    (fit, {"X": None}, "X", FINITE, "scalar array instead"),
    (fit, {"X": X[:0], "y": y[:0]}, "X", FINITE, r"0 sample\(s\)"),
    (fit, {"X": X[:, :0]}, "X", FINITE, r"0 feature\(s\)"),
    (fit, {"X": np.full((60, 2), "a")}, "X", FINITE, "'a'"),
    (fit, {"X": [[1, 2], [3]]}, "X", FINITE, "inhomogeneous"),
    (fit, {"X": pd.DataFrame(X, columns=["a", 1])}, "X", FINITE, r"\['int', 'str'\]"),
    (fit, {"X": X.astype(complex)}, "X", FINITE, "Complex data not supported"),
    (fit, {"X": X[:-1]}, "y", LABELS, r"inconsistent numbers of samples: \[59, 60\]"),
    (fit, {"y": y[:-1]}, "y", LABELS, r"inconsistent numbers of samples: \[60, 59\]"),
    (fit, {"y": None}, "y", "requires y to be passed", "None"),
    (fit, {"y": np.eye(3, dtype=int)[y]}, "y", LABELS, r"shape \(60, 3\)"),
    (fit, {"y": y + 0.5}, "y", LABELS, "continuous"),
    (fit, {"y": np.where(y == 0, np.nan, y)}, "y", LABELS, "NaN"),
    (fit, {"y": np.where(y == 0, np.inf, y)}, "y", LABELS, "infinity"),
    (
        fit,
        {"y": pd.Series(["a", None, "b"] * 20, dtype=object)},
        "y",
        LABELS,
        "20 of 60 labels are missing",
    ),
    (fit, {"y": np.array(["a", 1, "b"] * 20, dtype=object)}, "y", LABELS, "got int, str"),
    (fit, {"y": y.astype(complex)}, "y", LABELS, "Complex data"),
    (fit, {"y": sparse.csr_array(y[:, None])}, "y", LABELS, "Sparse data was passed for y"),
    (fit, {"y": np.zeros(60)}, "y", "at least 2 classes", r"1 class: \[0.0\]"),
    (fit, {"X": X[:1], "y": y[:1]}, "y", "at least 2 classes", r"1 class: \[1\]"),
    (fit, {"sample_weight": (y == 2) * 1.0}, "y", "2 classes .*positive weight", r"\[2\]"),
    (fit, {"sample_weight": np.zeros(60)}, "sample_weight", WEIGHTS, "at least one non-zero"),
    (fit, {"sample_weight": -np.ones(60)}, "sample_weight", WEIGHTS, "Negative values"),
    (fit, {"sample_weight": np.full(60, np.nan)}, "sample_weight", WEIGHTS, "NaN"),
    (fit, {"sample_weight": np.full(60, np.inf)}, "sample_weight", WEIGHTS, "infinity"),
    (fit, {"sample_weight": np.ones(3)}, "sample_weight", WEIGHTS, r"\(3,\), expected \(60,\)"),
    (fit, {"sample_weight": np.ones((60, 1))}, "sample_weight", WEIGHTS, "got 2D"),
    (fit, {"sample_weight": "balanced"}, "sample_weight", WEIGHTS, "'balanced'"),
    (fit, {"sample_weight": 2.0}, "sample_weight", WEIGHTS, "scalar"),
    # Going on
    (fit_again, {"y": y + 1}, "warm_start", r"classes of the first fit, \[0, 1, 2\]", r"\[1, 2, 3"),
    (fit_again, {"X": X[:, :1]}, "X", "expecting 2 features", "1 features"),
    (partial_fit, {"classes": None}, "classes", "must be passed on the first call", "all labels"),
    (partial_fit, {"classes": [0, 1]}, "y", r"labels seen in fit, \[0, 1\]", r"got \[2\]"),
    (partial_fit, {"classes": [1], "y": y * 0 + 1}, "y", "at least 2 classes", r"1 class: \[1\]"),
    (partial_fit, {"class_weight": "balanced"}, "class_weight", "a dict of weights", "'balanced'"),
    (partial_fit, {"X": with_entry(np.nan)}, "X", FINITE, "NaN"),
    (go_on, {"classes": [0, 1]}, "classes", r"the same in every call .*\[0, 1, 2\]", r"\[0, 1\]"),
    (go_on, {"X": X[:, :1]}, "X", AS_IN_FIT, "1 features"),
    # Other data than in fit
    (predict, {"X": np.ones((2, 3))}, "X", AS_IN_FIT, "X has 3 features, but .* expecting 2"),
    (predict, {"X": np.ones((2, 2, 1))}, "X", r"rows of shape \(2,\)", r"rows of shape \(2, 1\)"),
    (predict, {"X": [1.0, 2.0]}, "X", AS_IN_FIT, "1D array instead"),
    (predict, {"X": X[:0]}, "X", AS_IN_FIT, r"0 sample\(s\)"),
    (predict, {"X": [[np.nan, 1.0]]}, "X", AS_IN_FIT, "NaN"),
    (predict, {"X": [[np.inf, 1.0]]}, "X", AS_IN_FIT, "infinity"),
    (predict, {"X": [[1.7e308, -1.7e308]]}, "X", AS_IN_FIT, "too large for dtype"),
    (predict_frame, {"X": "ac"}, "X", "now missing:\n- b", "unseen at fit time:\n- c"),
    (predict_frame, {"X": "ba"}, "X", "in the same order", "feature names should match"),
    (posterior, {"y": np.full(60, 9)}, "y", r"labels seen in fit, \[0, 1, 2\]", r"got \[9\]"),
    (posterior, {"y": np.full(60, "a")}, "y", r"labels seen in fit, \[0, 1, 2\]", r"got \['a'\]"),
    (posterior, {"y": y[:-1]}, "y", LABELS, r"inconsistent .*\[60, 59\]"),
    (posterior, {"y": y + 0.5}, "y", LABELS, "continuous"),
    (posterior, {"y": None}, "y", LABELS, r"shape \(\)"),
    # Noise
    (noise.uniform_transition, {"n_classes": 1, "rate": 0.1}, "n_classes", ">= 2", "== 1"),
    (noise.pair_transition, {"n_classes": 2.5, "rate": 0}, "n_classes", "instance of", "float"),
    (noise.random_transition, {"n_classes": 3, "rate": 1.1}, "rate", r"in \[0, 1\]", "1.1"),
    (noise.uniform_transition, {"n_classes": 3, "rate": "0.1"}, "rate", "instance of", "str"),
    (noise.permutation_transition, {"permutation": [0, 2], "rate": 0}, "permutation", "once", "2"),
    (noise.block_transition, {"groups": [0], "rate": 0}, "groups", ">= 2", "== 1"),
    (noise.transition_from_trace, {"n_classes": 3, "trace": 3.1}, "trace", r"\[0, .*3\]", "3.1"),
    (
        noise.boundary_transition,
        {"clean_proba": [[0.5, 0.6]], "rate": 0.1},
        "clean_proba",
        "non-negative with rows that sum to one",
        "0.6",
    ),
    (
        noise.region_transition,
        {"in_region": [0, 1], "transition_matrix": np.eye(2)},
        "in_region",
        "a boolean array",
        "dtype int64",
    ),
    (corrupt, {"y": ["a", None, "b"]}, "y", "no missing ones", "NoneType"),
    (corrupt, {"y": [0, 7], "classes": [0, 1]}, "y", r"labels in classes, \[0, 1\]", r"\[7\]"),
    (corrupt, {"classes": [0, 0]}, "classes", "distinct labels", r"\[0, 0\]"),
    (corrupt, {"transition_matrix": np.eye(3)}, "transition_matrix", "the 2 labels", r"\(3, 3\)"),
    (corrupt, {"transition_matrix": [[1, 1], [0, 1]]}, "transition_matrix", STOCHASTIC, "to 2"),
    # Metrics
    (matrix_error, {"estimated": np.eye(2)}, "estimated", r"shape of true, \(3, 3\)", r"\(2, 2\)"),
    (matrix_error, {"estimated": -IDENTITY}, "estimated", "non-negative", "from -1"),
    (accuracy, {"y_pred": [0, 1, 2], "labels": [0, 1]}, "labels", r"\[0, 1\]", r"\[0, 1, 2\]"),
    (accuracy, {"transition_matrix": np.eye(4)}, "transition_matrix", "2 labels", r"\(4, 4\)"),
    (accuracy, {"sample_weight": [-1, 1, 1]}, "sample_weight", "non-negative", r"\[-1, 1, 1\]"),
]


@pytest.mark.parametrize(
    ("call", "arguments", "parameter", "expected", "came"),
    BAD_INPUTS,
    ids=[f"{index}-{call.__name__}-{name}" for index, (call, _, name, *_) in enumerate(BAD_INPUTS)],
)
def test_bad_input_is_refused(call, arguments, parameter, expected, came):
    with pytest.raises((ValueError, TypeError)) as refusal:
        call(**arguments)
    message = str(refusal.value)
    assert re.search(rf"(?<![a-z]){parameter}(?![a-z])", message)
    assert re.search(expected, message, re.DOTALL)
    assert re.search(came, message, re.DOTALL)


def test_the_table_of_bad_inputs_is_long():
    assert len({(call, *texts) for call, _, *texts in BAD_INPUTS}) >= 150


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
    with pytest.raises(ValueError, match=r"became nan in epoch 1 .* `lr` .* scale X"):
        fit(module=Returns(lambda X: X * np.nan))


def test_a_refused_fit_leaves_the_fitted_network_as_it_was():
    estimator = fit()
    proba = estimator.predict_proba(X)
    with pytest.raises(ValueError, match="became nan"):
        estimator.set_params(lr=1e30, warm_start=True, max_epochs=5).fit(X * 1e10, y)
    np.testing.assert_array_equal(estimator.predict_proba(X), proba)
