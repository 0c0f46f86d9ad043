"""Data in the forms it comes in: frames, sparse matrices, files, any labels, a fold at a time."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_val_predict

from sknoisy import NoisyLabelClassifier
from sknoisy.metrics import noise_corrected_accuracy_scorer, noisy_log_likelihood_scorer


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    keep = y < 3
    return (X[keep] / 16).astype("float32"), y[keep]


@pytest.fixture
def quick():
    return NoisyLabelClassifier(max_epochs=3, random_state=0)


# --- Features -----------------------------------------------------------------------------------


def test_names_of_a_data_frame_are_kept_and_compared(digits, quick):
    X, y = digits
    names = [f"pixel_{i}" for i in range(64)]
    frame = pd.DataFrame(X, columns=names, index=np.arange(len(X))[::-1])
    quick.fit(frame, pd.Series(y, index=frame.index))
    assert_array_equal(quick.feature_names_in_, names)
    assert_array_equal(quick.predict_proba(frame), clone(quick).fit(X, y).predict_proba(X))
    with pytest.raises(ValueError, match="feature names should match"):
        quick.predict(frame.rename(columns={"pixel_0": "other"}))
    with pytest.raises(ValueError, match=r"(?i)feature names must be in the same order"):
        quick.predict(frame[names[::-1]])
    with pytest.raises(ValueError, match="feature names should match"):
        quick.predict(frame.drop(columns="pixel_0"))


@pytest.mark.parametrize("convert", [sparse.csr_array, sparse.csr_matrix])
@pytest.mark.parametrize("params", [{}, {"noise_model": "c"}, {"method": "em", "tol": 1.0}])
def test_csr_gives_the_result_of_the_dense_matrix(convert, params, digits, quick):
    X, y = digits
    quick.set_params(**params)
    expected = clone(quick).fit(X, y).predict_proba(X)
    assert_allclose(quick.fit(convert(X), y).predict_proba(convert(X)), expected, atol=1e-5)


def test_csr_is_never_made_dense_as_a_whole(digits, quick, monkeypatch):
    X, y = digits
    X = np.hstack([X, np.zeros((len(X), 20_000), dtype=X.dtype)])
    rows = []
    original = sparse.csr_array.toarray

    def spy(self, *args, **kwargs):
        rows.append(self.shape[0])
        return original(self, *args, **kwargs)

    quick.set_params(batch_size=50, iterator_valid__batch_size=60, early_stopping=True)
    monkeypatch.setattr(sparse.csr_array, "toarray", spy)
    monkeypatch.setattr(sparse.csr_array, "todense", None)
    quick.fit(sparse.csr_array(X), y).predict(sparse.csr_array(X))
    assert rows
    assert max(rows) <= 60


def test_wide_sparse_data_needs_little_memory(quick):
    columns = np.random.default_rng(0).integers(20_000, size=20_000)
    X = sparse.csr_array(
        (np.ones(20_000, dtype="float32"), (np.arange(20_000) % 1000, columns)), (1000, 20_000)
    )
    y = np.arange(1000) % 2
    quick.set_params(
        batch_size=20, iterator_valid__batch_size=20, hidden_layer_sizes=(2,), max_epochs=1
    )
    tracemalloc.start()
    quick.fit(X, y).predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.shape[0] * X.shape[1] * 4 / 5


@pytest.mark.parametrize("form", ["csc", "coo", "lil", "dok", "bsr"])
def test_other_sparse_formats_are_converted(form, digits, quick):
    X, y = digits
    quick.set_params(max_epochs=1)
    expected = clone(quick).fit(sparse.csr_array(X), y).predict_proba(X)
    X_other = sparse.csr_array(X).asformat(form)
    assert_array_equal(quick.fit(X_other, y).predict_proba(X_other), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int16"])
def test_a_memory_map_is_never_copied_as_a_whole(dtype, quick, tmp_path):
    shape = (4000, 500)
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", dtype, shape)
    X[:] = np.random.RandomState(0).rand(*shape) * 9
    y = (X[:, 0] > 4).astype(int)
    X.flush()
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    before = X[:3].copy()
    quick.set_params(hidden_layer_sizes=(4,), max_epochs=1, iterator_valid__batch_size=200)
    quick.fit(X[:100], y[:100])
    tracemalloc.start()
    quick.fit(X, y)
    quick.predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.size * max(X.itemsize, 4) / 2
    assert_array_equal(X[:3], before)
    assert str(quick.net_.dtype) == ("torch.float64" if dtype == "float64" else "torch.float32")


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool", "float16"])
def test_numbers_of_any_type_are_taken(dtype, digits, quick):
    X, y = digits
    X = (X > 0.5).astype(dtype)
    proba = quick.fit(X, y).predict_proba(X)
    assert_allclose(proba.sum(axis=1), 1)
    weights = quick.net_.network.head.weight
    assert str(weights.dtype) == ("torch.float64" if dtype == "float64" else "torch.float32")
    expected = clone(quick).fit(X.astype("float64"), y).predict_proba(X.astype("float64"))
    assert_allclose(proba, expected, atol=0.05)


# --- Labels -------------------------------------------------------------------------------------

LABELS = {
    "strings": np.array(["ant", "bee", "cow"]),
    "objects": np.array(["ant", "bee", "cow"], dtype=object),
    "gaps": np.array([-5, 7, 1000]),
    "unsigned": np.array([0, 1, 2], dtype="uint8"),
    "floats": np.array([0.0, 1.0, 5.0]),
}


@pytest.mark.parametrize("names", LABELS.values(), ids=LABELS)
def test_labels_of_any_type_come_back(names, digits, quick):
    X, y = digits
    predicted = quick.fit(X, names[y]).predict(X)
    assert_array_equal(quick.classes_, names)
    assert predicted.dtype == names.dtype
    assert_array_equal(predicted, names[clone(quick).fit(X, y).predict(X)])


def test_boolean_labels_come_back(digits, quick):
    X, y = digits
    predicted = quick.fit(X, y == 1).predict(X)
    assert predicted.dtype == bool
    assert_array_equal(predicted, quick.predict_proba(X)[:, 1] > 0.5)


@pytest.mark.parametrize("kind", ["category", "string", "object"])
def test_labels_of_a_series_come_back(kind, digits, quick):
    X, y = digits
    names = LABELS["strings"]
    expected = clone(quick).fit(X, names[y]).predict(X)
    labels = pd.Series(names[y]).astype(kind)
    quick.fit(X, labels)
    assert quick.classes_.tolist() == names.tolist()
    assert quick.predict(X).tolist() == expected.tolist()
    assert quick.label_posterior(X, labels).shape == (len(X), 3)
    assert quick.score(X, labels) > 0.5


def test_folds_may_lack_a_class(digits, quick):
    X, y = digits
    folds = PredefinedSplit(np.where(y == 2, 0, np.arange(len(y)) % 2))
    scoring = {
        "likelihood": noisy_log_likelihood_scorer,
        "accuracy": noise_corrected_accuracy_scorer,
    }
    search = GridSearchCV(
        quick, {"noise_model": ["s", "c", None]}, scoring=scoring, cv=folds, refit="likelihood"
    ).fit(X, y)
    for name in scoring:
        assert np.isfinite(search.cv_results_[f"mean_test_{name}"]).all()
    with pytest.warns(RuntimeWarning, match="Number of classes in training fold"):
        proba = cross_val_predict(quick, X, y, cv=folds, method="predict_proba")
    assert_array_equal(proba[folds.test_fold == 0, 2], 0)


# --- Going on -----------------------------------------------------------------------------------


@pytest.mark.parametrize("noise_model", ["s", "c", None])
def test_warm_start_goes_on_from_the_last_fit(noise_model, digits):
    X, y = digits
    first = NoisyLabelClassifier(
        noise_model=noise_model, max_epochs=5, select_noise_model=False, random_state=0
    ).fit(X, y)
    n_epochs, loss = first.n_iter_, first.history_[-1, "train_loss"]
    first.set_params(warm_start=True).fit(X, y)
    if noise_model is None:
        assert set(first.history_[:, "stage"]) == {"baseline"}
        assert first.n_iter_ > n_epochs
    else:
        assert first.n_iter_ == n_epochs + 5
    assert first.history_[n_epochs, "train_loss"] < first.history_[0, "train_loss"]
    assert first.history_[-1, "train_loss"] < loss
    assert not set(first.history_[n_epochs:, "stage"]) & {"start"}


def test_warm_start_refuses_other_classes_and_other_columns(digits, quick):
    X, y = digits
    quick.set_params(warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match=r"warm_start=True needs the classes of the first fit"):
        quick.fit(X, y + 1)
    with pytest.raises(ValueError, match=r"\bX\b|features|shape"):
        quick.fit(X[:, :60], y)
