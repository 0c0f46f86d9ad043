"""Whole numbers of X are exact in the network or refused, and none is too large to learn from."""

from fractions import Fraction
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from scipy import sparse
from sklearn.datasets import make_classification
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sknoisy import NoisyLabelClassifier

try:
    import polars
except ImportError:  # the other forms are tried without it
    polars = None

NOW = 1_700_000_000
SINGLE, DOUBLE = 2**24, 2**53  # one more has no value in float32, or float64


class Local(nn.Module):
    """Looks at timestamps around a point in time."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 16)

    def forward(self, X):
        return torch.relu(self.layer((X - NOW - 50) / 30))


@cache
def times():
    time = NOW + np.random.RandomState(0).randint(0, 100, (300, 2))
    return time, (time[:, 0] >= NOW + 50).astype(int)


def as_memory_map(tmp_path, values):
    path = tmp_path / f"{values.dtype}.npy"
    mapped = np.lib.format.open_memmap(path, "w+", values.dtype, values.shape)
    mapped[:] = values
    return mapped


FORMS = {
    "int64": lambda X: X.astype("int64"),
    "uint32": lambda X: X.astype("uint32"),
    "int32, turned": lambda X: X.astype("int32").T.copy().T,
    "big-endian": lambda X: X.astype(">i8"),
    "read-only": lambda X: np.broadcast_to(X, (1, *X.shape))[0],
    "objects": lambda X: X.astype(object),
    "objects of floats": lambda X: X.astype(float).astype(object),
    "fractions": lambda X: np.vectorize(Fraction, otypes=[object])(X),
    "list": lambda X: X.tolist(),
    "list of tuples": lambda X: [tuple(row) for row in X.tolist()],
    "list of floats": lambda X: X.astype(float).tolist(),
    "list of arrays": list,
    "mixed list": lambda X: [[float(a), int(b)] for a, b in X],
    "strings": lambda X: X.astype(str),
    "csr of int64": lambda X: sparse.csr_array(X),
    "csr of uint32": lambda X: sparse.csr_array(X.astype("uint32")),
    "csc": lambda X: sparse.csc_matrix(X),
    "csr of float64": lambda X: sparse.csr_array(X.astype(float)),
    "frame": lambda X: pd.DataFrame(X, columns=["a", "b"]),
    "frame of Int64": lambda X: pd.DataFrame(X, columns=["a", "b"]).astype("Int64"),
    "frame of Float64": lambda X: pd.DataFrame(X, columns=["a", "b"]).astype("Float64"),
    "mixed frame": lambda X: pd.DataFrame({"a": X[:, 0].astype("f8"), "b": X[:, 1]}),
    "frame of objects": lambda X: pd.DataFrame(X, columns=["a", "b"]).astype(object),
    "float64": lambda X: X.astype(float),
}
if polars is not None:
    FORMS |= {
        "polars": lambda X: polars.DataFrame(X, schema=["a", "b"]),
        "mixed polars": lambda X: polars.DataFrame({"a": X[:, 0].astype("u8"), "b": X[:, 1]}),
    }
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
ignore_names = pytest.mark.filterwarnings("ignore:X (does not have|has feature):UserWarning")


def fit(X, y, module=Local, **params):
    params = {"max_epochs": 15, "lr": 0.01, "noise_model": None, "random_state": 0} | params
    return NoisyLabelClassifier(module, **params).fit(X, y)


@cache
def fitted_on_float64():
    X, y = times()
    return fit(X.astype(float), y)


# --- Whole numbers -----------------------------------------------------------------------------


@ignore_names
@every_form
def test_numbers_predict_the_same_in_every_form(form):
    X, y = times()
    fitted = fitted_on_float64()
    assert fitted.score(X.astype(float), y) > 0.95
    given = form(X)
    for method in ("predict_proba", "predict_log_proba", "predict_noisy_proba"):
        assert_array_equal(getattr(fitted, method)(given), getattr(fitted, method)(X.astype(float)))
    assert_array_equal(fitted.label_posterior(given, y), fitted.label_posterior(X.astype(float), y))


@ignore_names
@every_form
def test_numbers_are_learned_the_same_in_every_form(form):
    X, y = times()
    fitted = fit(form(X), y)
    assert fitted.net_.dtype == torch.float64
    expected = fitted_on_float64().predict_proba(X.astype(float))
    assert_array_equal(fitted.predict_proba(X.astype(float)), expected)


@pytest.mark.parametrize("dtype", ["int64", "uint32", "float64"])
def test_numbers_in_a_memory_map_are_learned_the_same(dtype, tmp_path):
    X, y = times()
    mapped = as_memory_map(tmp_path, X.astype(dtype))
    expected = fitted_on_float64().predict_proba(X.astype(float))
    assert_array_equal(fitted_on_float64().predict_proba(mapped), expected)
    assert_array_equal(fit(mapped, y).predict_proba(mapped), expected)


@ignore_names
@every_form
def test_a_stream_takes_numbers_in_the_type_it_began_with(form):
    X, y = times()

    def stream(*forms):
        learned = NoisyLabelClassifier(Local, noise_model=None, random_state=0)
        for rows, make in zip(np.split(np.arange(300), 3), forms, strict=True):
            learned.partial_fit(make(X[rows]), y[rows], classes=[0, 1])
        return learned.predict_proba(X.astype(float))

    plain = FORMS["float64"]
    assert_array_equal(stream(plain, form, plain), stream(plain, plain, plain))
    assert_array_equal(stream(form, form, plain), stream(plain, plain, plain))


@ignore_names
@every_form
def test_a_network_in_float32_refuses_whole_numbers_that_it_does_not_hold(form):
    small, y = times()[0] - NOW, times()[1]
    X = np.where(np.arange(600).reshape(300, 2) == 7, SINGLE + 1, small)
    floats = {"float64", "list of floats", "csr of float64", "objects of floats"}
    floats |= {"frame of Float64", "strings", "fractions"}
    fitted = fit(small.astype("float32"), y)
    given = form(X)
    if form in [FORMS[name] for name in floats]:
        fitted.predict(given)  # is rounded, as floating point numbers are
        return
    for call in (fitted.predict, fitted.predict_proba, lambda X: fitted.partial_fit(X, y)):
        with pytest.raises(ValueError, match=r"`X` must .*16777217 .*float32.*float64"):
            call(given)


@ignore_names
@every_form
def test_small_whole_numbers_train_in_float32(form):
    X, y = times()
    given = form(X - NOW)
    floats = {"float64", "list of floats", "csr of float64", "objects of floats", "mixed list"}
    floats |= {"frame of Float64", "strings", "fractions", "mixed frame"}
    single = form not in [FORMS[name] for name in floats]
    assert fit(given, y).net_.dtype == (torch.float32 if single else torch.float64)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0, 1, SINGLE, -SINGLE], torch.float32),
        ([0, 1, 2**30, -(2**62)], torch.float32),
        ([0, 1, 2, SINGLE + 1], torch.float64),
        ([0, 1, 2, -SINGLE - 1], torch.float64),
        ([0, 1, 2, DOUBLE - 1], torch.float64),
        ([0, 1, 2, 2**60 + 2**10], torch.float64),
    ],
)
@pytest.mark.parametrize("noise_model", ["s", None])
@pytest.mark.parametrize("module", [None, lambda: nn.Linear(1, 4)])
def test_the_network_has_the_type_that_holds_all_numbers(values, dtype, module, noise_model):
    X = np.repeat(np.array(values), 10)[:, None]
    y = np.repeat([0, 1, 0, 1], 10)
    for given in (X, X.astype(object), sparse.csr_array(X), pd.DataFrame(X, columns=["a"])):
        fitted = fit(given, y, module, noise_model=noise_model, max_epochs=1)
        assert fitted.net_.dtype == dtype


@pytest.mark.parametrize("number", [DOUBLE + 1, -DOUBLE - 1, 2**63 - 1])
@pytest.mark.parametrize("name", FORMS)
def test_numbers_that_float64_does_not_hold_are_refused(name, number):
    if name in {"uint32", "int32, turned", "csr of uint32"} or "loat" in name or "mixed" in name:
        pytest.skip("does not hold the number, or holds another one")
    if name in {"strings", "fractions"}:
        pytest.skip("is not taken for whole")
    X = np.repeat(np.array([0, 1, 2, number]), 10)[:, None].repeat(2, axis=1)
    y = np.repeat([0, 1, 0, 1], 10)
    with pytest.raises(ValueError, match=f"`X` must .*{number} .*float64"):
        fit(FORMS[name](X), y)
    if "frame" not in name and name != "polars":  # names would be compared first
        with pytest.raises(ValueError, match=f"`X` must .*{number} .*float64"):
            fitted_on_float64().predict(FORMS[name](X))


@pytest.mark.parametrize(
    "given",
    [
        [[0.5, DOUBLE + 1], [1.5, 2]],
        np.array([[0.5, DOUBLE + 1], [1.5, 2]], dtype=object),
        pd.DataFrame({"a": [0.5, 1.5], "b": [DOUBLE + 1, 2]}),
        pd.DataFrame({"a": [0.5, 1.5], "b": pd.array([DOUBLE + 1, 2], dtype="Int64")}),
        pd.DataFrame({"a": pd.array([1, 2], "uint64"), "b": pd.array([DOUBLE + 1, 2], "int64")}),
    ],
    ids=["list", "objects", "frame", "Int64", "uint64 and int64"],
)
def test_whole_numbers_among_others_are_refused_as_alone(given):
    with pytest.raises(ValueError, match="9007199254740993 has no exact value in float64"):
        fit(given, [0, 1], lambda: nn.Linear(2, 4))


def test_whole_numbers_among_others_in_polars_are_refused():
    frame = pytest.importorskip("polars").DataFrame({"a": [0.5, 1.5], "b": [DOUBLE + 1, 2]})
    with pytest.raises(ValueError, match="9007199254740993 has no exact value in float64"):
        fit(frame, [0, 1], lambda: nn.Linear(2, 4))


def test_images_of_whole_numbers_are_taken():
    X = np.random.RandomState(0).randint(0, 256, (60, 3, 4, 4))
    y = np.arange(60) % 2
    fitted = {dtype: fit(X.astype(dtype), y, nn.Flatten) for dtype in ("uint8", "int64", "float32")}
    expected = fitted["float32"].predict_proba(X)
    assert fitted["uint8"].net_.dtype == torch.float32
    for one in fitted.values():
        assert_array_equal(one.predict_proba(X), expected)


@pytest.mark.parametrize("dtype", ["datetime64[s]", "timedelta64[s]", "V8"])
def test_what_is_no_number_is_refused(dtype):
    X, y = times()
    with pytest.raises((TypeError, ValueError), match="`X` must"):
        fit(X.astype("int64").view(dtype), y)


def test_identifiers_that_differ_stay_different():
    ids = np.array([[SINGLE], [SINGLE + 1]] * 40)

    class Parity(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(2, 4)

        def forward(self, X):
            return self.table((X[:, 0] % 2).long())

    y = np.array([0, 1] * 40)
    for given in (ids, ids.tolist(), ids.astype(object), pd.DataFrame(ids, columns=["id"])):
        assert fit(given, y, Parity, lr=0.1).score(given, y) == 1.0


# --- Large numbers -----------------------------------------------------------------------------


@cache
def data():
    X, y = make_classification(200, 8, n_informative=5, random_state=0)
    return X / np.abs(X).max(), y


LARGE = [("float32", 1e30), ("float32", 1e20), ("float32", 1e38), ("float64", 1e300)]
LARGE += [("float64", 1e160), ("float64", 1.5e308)]
MODULES = {"default": None, "own": lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU())}


@pytest.mark.parametrize(("dtype", "scale"), LARGE)
@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("params", [{}, {"dropout": 0.2}, {"noise_model": "c"}, {"method": "em"}])
def test_numbers_too_large_to_learn_from_are_refused(dtype, scale, module, params):
    X, y = data()
    X = (X * scale).astype(dtype)
    frame = pd.DataFrame(X, columns=list("abcdefgh"))
    classifier = NoisyLabelClassifier(MODULES[module], random_state=0, **params)
    for given in (X, X.tolist(), sparse.csr_array(X), frame):
        if isinstance(given, list) and scale < 1e150:
            continue  # a list is in float64
        with pytest.raises(
            ValueError, match=rf"`X` must .*too large for dtype\('{dtype}'\).*Scale"
        ):
            classifier.fit(given, y)
    with pytest.raises(NotFittedError):
        check_is_fitted(classifier)


@pytest.mark.parametrize("number", [10**400, -(10**400), np.longdouble("1e4000")], ids=str)
def test_numbers_that_no_float_holds_are_refused(number):
    for given in ([[number, 1.0], [0.0, 2.0]], np.array([[number, 1], [0, 2]], dtype=object)):
        with pytest.raises(ValueError, match=r"`X` must .*infinity or a value too large"):
            fit(given, [0, 1], None)


def test_one_number_that_is_too_large_is_found(tmp_path):
    X, y = data()
    X = X.astype("float32")
    X[150, 3] = -1e25
    for given in (X, as_memory_map(tmp_path, X)):
        with pytest.raises(ValueError, match=r"too large .*got 1e\+25"):
            fit(given, y, None)


def test_a_stream_refuses_numbers_too_large_for_its_network():
    X, y = data()
    learned = NoisyLabelClassifier(random_state=0).partial_fit(X.astype("float32"), y, [0, 1])
    before = learned.predict_proba(X)
    with pytest.raises(ValueError, match=r"too large for dtype\('float32'\)"):
        learned.partial_fit(X * 1e30, y)
    assert_array_equal(learned.predict_proba(X), before)
    NoisyLabelClassifier(random_state=0).partial_fit(X * 1e30, y, [0, 1])  # float64 holds them


def test_predictions_refuse_numbers_that_the_network_does_not_hold():
    X, y = data()
    fitted = fit(X.astype("float32"), y, None)
    for method in ("predict", "predict_proba", "predict_noisy_proba"):
        with pytest.raises(ValueError, match=r"`X` must .*too large for dtype\('float32'\).*as in"):
            getattr(fitted, method)(X * 1e300)


@pytest.mark.parametrize(("dtype", "scale"), [("float32", 1e12), ("float64", 1e140)])
def test_numbers_below_are_learned_from(dtype, scale):
    X, y = data()
    X = (X * scale).astype(dtype)
    assert np.isfinite((X**2).sum(axis=1)).all()
    proba = fit(X, y, lambda: nn.BatchNorm1d(8)).predict_proba(X)
    assert np.isfinite(proba).all()
