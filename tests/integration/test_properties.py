"""Laws of the whole classifier on small random problems, the odd ones first of all."""

import copy
import pickle
import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from sknoisy import NoisyLabelClassifier, noise
from sknoisy._data.training_data import validate_training_data
from sknoisy._transition.starts import (
    Estimate,
    calibrated_start,
    cluster_start,
    confident_start,
    hard_start,
    mixture_start,
    uniform_start,
)

pytestmark = pytest.mark.filterwarnings("ignore:The number of unique classes is greater than 50%")


def examples(share):
    """Return settings for a share of the examples that the profile asks for."""
    return settings(max_examples=max(1, int(share * settings.default.max_examples)))


# --- Random problems ----------------------------------------------------------------------------

METHODS = [
    {"noise_model": None},
    {},
    {"noise_model": "c"},
    {"method": "em"},
    {"transition_init": "cluster"},
    {"transition_init": "confusion"},
    {"transition_init": "matrix"},
    {"transition_init": "matrix", "learn_transition": False},
    {"volume_penalty": 0.1, "transition_prior": 0.0},
]
LABELS = {
    "integers": lambda k: np.arange(k),
    "gaps": lambda k: np.arange(k) * 7 - 10,
    "unsigned": lambda k: np.arange(k, dtype="uint8"),
    "large": lambda k: np.arange(k) + 2**62,
    "floats": lambda k: np.arange(k) * 2.0,
    "strings": lambda k: np.array([f"class {i:02}" for i in range(k)]),
    "objects": lambda k: np.array([f"\u00e9t\u00e9 {i:02}" for i in range(k)], dtype=object),
}


class Problem(NamedTuple):
    """What a data set and a classifier are drawn from; hypothesis shows and shrinks it."""

    seed: int = 0
    n_classes: int = 2
    rows_per_class: int = 4
    n_features: int = 2
    dtype: str = "float64"
    scale: float = 1.0
    kind: str = "normal"
    form: str = "array"
    labels: str = "integers"
    weights: str = "none"
    method: int = 1
    early_stopping: bool = False

    def data(self):
        """Return X, the observed labels and the weights."""
        rng = np.random.default_rng(self.seed)
        true = np.repeat(np.arange(self.n_classes), self.rows_per_class)
        X = rng.standard_normal((len(true), self.n_features)) + true[:, None]
        if self.kind == "constant feature":
            X[:, 0] = 1.0
        elif self.kind == "constant":
            X[:] = 1.0
        elif self.kind == "duplicates":
            X[:] = X[: max(1, len(X) // 4)][np.arange(len(X)) % max(1, len(X) // 4)]
        with np.errstate(all="ignore"):
            X = (X * self.scale).astype(self.dtype)
        if self.form == "csr":
            X = sparse.csr_array(X.astype("float32") if X.dtype == np.float16 else X)
        elif self.form == "frame":
            X = pd.DataFrame(X, columns=[f"x{i}" for i in range(self.n_features)])
        elif self.form == "images":
            X = X.reshape(len(X), 1, -1, 1)
        wrong = rng.uniform(size=len(true)) < 0.3
        wrong[np.unique(true, return_index=True)[1]] = False  # every class is seen
        y = np.where(wrong, rng.integers(self.n_classes, size=len(true)), true)
        weight = {
            "none": None,
            "equal": np.full(len(y), 3.0),
            "uneven": rng.uniform(1e-8, 1e8, len(y)),
            "zeros": np.where(wrong, 0.0, rng.uniform(0.5, 2.0, len(y))),
        }[self.weights]
        order = rng.permutation(len(y))
        X = X.iloc[order] if self.form == "frame" else X[order]
        names = LABELS[self.labels](self.n_classes)
        return X, names[y[order]], None if weight is None else weight[order]

    def classifier(self, **params):
        method = dict(METHODS[self.method])
        if method.get("transition_init") == "matrix":
            method["transition_init"] = noise.pair_transition(self.n_classes, 0.3)
        small = {"hidden_layer_sizes": (3,), "max_epochs": 1, "max_em_iter": 1}
        small |= {"early_stopping": self.early_stopping, "random_state": self.seed}
        return NoisyLabelClassifier(**(small | method | params))

    def fit(self, **params):
        """Return the fitted classifier, or None if it was refused with advice on the scale."""
        X, y, weight = self.data()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            try:
                return self.classifier(**params).fit(X, y, weight)
            except ValueError as error:
                assert abs(np.log10(self.scale)) > 5, error
                assert "scale X" in str(error) or "finite" in str(error)
                return None


problems = st.builds(
    Problem,
    seed=st.integers(0, 2**16),
    n_classes=st.one_of(st.integers(2, 6), st.integers(2, 50)),
    rows_per_class=st.one_of(st.just(1), st.integers(1, 6), st.just(25)),
    n_features=st.integers(1, 5),
    dtype=st.sampled_from(["float32", "float64", "float16", "int64", "uint8", "bool"]),
    scale=st.sampled_from([1e-300, 1e-38, 1e-10, 1e-3, 1.0, 1e3, 1e10, 1e30, 1e38, 1e300]),
    kind=st.sampled_from(["normal", "constant feature", "constant", "duplicates"]),
    form=st.sampled_from(["array", "csr", "frame", "images"]),
    labels=st.sampled_from(sorted(LABELS)),
    weights=st.sampled_from(["none", "equal", "uneven", "zeros"]),
    method=st.integers(0, len(METHODS) - 1),
    early_stopping=st.booleans(),
)


def assert_distributions(proba, shape):
    assert proba.shape == shape
    assert np.isfinite(proba).all()
    assert proba.min() >= 0
    assert proba.max() <= 1
    assert_allclose(proba.sum(axis=-1), 1, rtol=0, atol=1e-9)


@given(problems)
@examples(0.8)
@example(Problem(rows_per_class=1, dtype="float32", scale=1e300))  # both infinities
@example(Problem(rows_per_class=1, early_stopping=True))
@example(Problem(rows_per_class=1, n_classes=50, method=2))
@example(Problem(n_classes=2, rows_per_class=25, scale=1e300, method=3))
@example(Problem(n_classes=3, rows_per_class=25, scale=1e-300, dtype="float32", method=4))
@example(Problem(n_classes=50, rows_per_class=25, kind="constant", method=2))
@example(Problem(n_classes=4, rows_per_class=25, kind="duplicates", weights="uneven"))
def test_a_fit_gives_distributions_or_advice(problem):
    X, y, weight = problem.data()
    given = copy.deepcopy((X, y, weight))
    fitted = problem.fit()
    if fitted is None:
        return
    k, n = problem.n_classes, len(y)
    assert_array_equal(fitted.classes_, np.unique(y))
    assert fitted.classes_.dtype == y.dtype
    assert_distributions(fitted.transition_matrix_, (k, k))
    assert_distributions(fitted.initial_transition_matrix_, (k, k))
    assert_distributions(fitted.class_prior_, (k,))
    assert 0 <= fitted.noise_rate_ <= 1
    assert np.isfinite(fitted.history_[:, "train_loss"]).all()
    assert fitted.n_iter_ == len(fitted.history_)
    for proba in (
        fitted.predict_proba(X),
        fitted.predict_noisy_proba(X),
        fitted.label_posterior(X, y),
    ):
        assert_distributions(proba, (n, k))
    assert_distributions(fitted.predict_transition(X), (n, k, k))
    assert_array_equal(fitted.predict(X), fitted.classes_[fitted.predict_proba(X).argmax(axis=1)])
    for mine, theirs in zip((X, y, weight), given, strict=True):
        if sparse.issparse(mine):
            mine, theirs = mine.toarray(), theirs.toarray()
        assert_array_equal(mine, theirs)


@given(problems)
@examples(0.2)
def test_a_fit_is_the_same_again_and_after_pickling(problem):
    one, other = problem.fit(), problem.fit()
    if one is None:
        assert other is None
        return
    X, y, weight = problem.data()
    copied = pickle.loads(pickle.dumps(problem.classifier()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        copied.fit(X, y, weight)
    for again in (other, copied, pickle.loads(pickle.dumps(one))):
        assert_array_equal(again.predict_noisy_proba(X), one.predict_noisy_proba(X))
        assert_array_equal(again.transition_matrix_, one.transition_matrix_)


@given(problems, st.sampled_from(sorted(LABELS)))
@examples(0.2)
def test_the_names_of_the_classes_make_no_difference(problem, labels):
    fitted, renamed = problem.fit(), problem._replace(labels=labels).fit()
    assert (fitted is None) == (renamed is None)
    if fitted is not None:
        X, _, _ = problem.data()
        assert_array_equal(renamed.predict_proba(X), fitted.predict_proba(X))


@given(problems)
@examples(0.2)
def test_a_stream_gives_distributions_or_advice(problem):
    if METHODS[problem.method].get("method") == "em":
        problem = problem._replace(method=1)
    X, y, weight = problem.data()
    classifier = problem.classifier()
    rows = slice(0, max(1, len(y) // 2)), slice(len(y) // 2, None)
    for part in rows:
        chunk = X.iloc[part] if problem.form == "frame" else X[part]
        weights = None if weight is None else weight[part]
        if weights is not None and not weights.any():
            continue
        try:
            classifier.partial_fit(chunk, y[part], classes=np.unique(y), sample_weight=weights)
        except ValueError as error:
            assert abs(np.log10(problem.scale)) > 5, error
            return
        assert_distributions(classifier.predict_proba(X), (len(y), problem.n_classes))
        assert_distributions(classifier.transition_matrix_, (problem.n_classes,) * 2)


@given(problems)
@examples(0.5)
def test_labels_are_encoded_in_the_order_of_the_classes(problem):
    problem = problem._replace(scale=1.0)
    X, y, weight = problem.data()
    data = validate_training_data(NoisyLabelClassifier(), X, y, weight)
    kept = slice(None) if weight is None else weight > 0
    assert_array_equal(data.classes[data.target], y[kept])
    assert_array_equal(data.classes, np.unique(y[kept]))
    assert data.weight is None or np.isclose(data.weight.mean(), 1.0)


# --- Starts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start",
    [cluster_start, confident_start, hard_start, mixture_start, calibrated_start, uniform_start],
)
@given(
    seed=st.integers(0, 2**16),
    n_classes=st.integers(2, 25),
    n_rows=st.integers(1, 120),
    scale=st.sampled_from([0.0, 1e-8, 1.0, 30.0, 1e4, 1e30]),
    dtype=st.sampled_from(["float32", "float64"]),
    weighted=st.booleans(),
    duplicates=st.booleans(),
)
@examples(0.12)
def test_a_start_is_a_matrix_whatever_the_network_says(
    start, seed, n_classes, n_rows, scale, dtype, weighted, duplicates
):
    rng = np.random.default_rng(seed)
    logits = scale * rng.standard_normal((n_rows, n_classes))
    logits = np.repeat(logits[:1], n_rows, axis=0) if duplicates else logits
    log_proba = (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(dtype)
    target = rng.integers(n_classes, size=n_rows)
    weight = rng.uniform(1e-6, 1e6, n_rows) if weighted else None
    if start is cluster_start and n_rows < n_classes:
        return  # the trainer asks for ten rows a class
    found = start(log_proba, target, weight)
    if isinstance(found, Estimate):
        assert np.isfinite(found.log_likelihood)
        found = found.transition
    assert_distributions(found, (n_classes, n_classes))


# --- Noise --------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**16),
    n_classes=st.integers(2, 50),
    n_rows=st.integers(0, 60),
    rate=st.one_of(st.just(0.0), st.just(1.0), st.floats(0, 1), st.just(5e-324)),
    labels=st.sampled_from(sorted(LABELS)),
    exact=st.booleans(),
    builder=st.sampled_from(
        [noise.uniform_transition, noise.pair_transition, noise.random_transition]
    ),
)
@examples(0.6)
def test_corrupted_labels_are_classes_that_the_matrix_allows(
    seed, n_classes, n_rows, rate, labels, exact, builder
):
    transition = builder(n_classes, rate)
    assert_distributions(transition, (n_classes, n_classes))
    names = LABELS[labels](n_classes)
    true = np.random.default_rng(seed).integers(n_classes, size=n_rows)
    observed = noise.corrupt_labels(
        names[true], transition, classes=names, exact=exact, random_state=seed
    )
    assert observed.dtype == names.dtype
    position = {name: i for i, name in enumerate(names.tolist())}
    index = np.array([position[label] for label in observed.tolist()], dtype=int)
    assert (transition[true, index] > 0).all()
    if exact:
        for i in range(n_classes):
            counts = np.bincount(index[true == i], minlength=n_classes)
            assert np.abs(counts - (true == i).sum() * transition[i]).max(initial=0) < 1
