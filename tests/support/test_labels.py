"""Missing labels are counted and found, whatever holds them; objects of one type are taken."""

import datetime
import decimal
import fractions

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import make_blobs

from sknoisy import NoisyLabelClassifier
from sknoisy._support.labels import as_label_array, describe_missing
from sknoisy.inspection import find_label_issues, label_quality, noise_test
from sknoisy.metrics import (
    noise_corrected_accuracy,
    noise_corrected_accuracy_scorer,
    noisy_log_likelihood_scorer,
)
from sknoisy.noise import corrupt_labels, uniform_transition

X, clean = make_blobs(80, centers=2, random_state=0)
NAN = float("nan")
ROWS = [1, 5, 6]


def with_missing(values, missing):
    """Return 80 labels of two values with three that are missing."""
    labels = [values[i] for i in clean]
    for row in ROWS:
        labels[row] = missing
    return labels


def objects(values, missing):
    labels = np.empty(80, dtype=object)
    labels[:] = with_missing(values, missing)
    return labels


def polars(values, dtype=None):
    frames = pytest.importorskip("polars")
    return frames.Series(with_missing(values, None), dtype=dtype and getattr(frames, dtype))


def arrow(values):
    return pytest.importorskip("pyarrow").array(with_missing(values, None))


def masked(values):
    return np.ma.MaskedArray(np.array(values)[clean], mask=np.isin(np.arange(80), ROWS))


STRINGS, INTEGERS = ["a", "b"], [3, 7]
MISSING = {
    "None among strings": (lambda: objects(STRINGS, None), "None"),
    "None among integers": (lambda: objects(INTEGERS, None), "None"),
    "None among booleans": (lambda: objects([False, True], None), "None"),
    "NaN among strings": (lambda: objects(STRINGS, NAN), "NaN"),
    "numpy NaN among integers": (lambda: objects(INTEGERS, np.float32("nan")), "NaN"),
    "NA among strings": (lambda: objects(STRINGS, pd.NA), "NA"),
    "NaT among strings": (lambda: objects(STRINGS, pd.NaT), "NaT"),
    "Decimal NaN": (lambda: objects(INTEGERS, decimal.Decimal("nan")), "NaN"),
    "numpy NaT among strings": (lambda: objects(STRINGS, np.datetime64("nat")), "NaT"),
    "floats": (lambda: np.array(with_missing([0.0, 1.0], NAN)), "NaN"),
    "half precision": (lambda: np.array(with_missing([0, 1], NAN), dtype="float16"), "NaN"),
    "column": (lambda: np.array(with_missing([0.0, 1.0], NAN))[:, None], "NaN"),
    "list of strings and None": (lambda: with_missing(STRINGS, None), "None"),
    "list of strings and NaN": (lambda: with_missing(STRINGS, NAN), "NaN"),
    "tuple of integers and None": (lambda: tuple(with_missing(INTEGERS, None)), "None"),
    "list of integers and NA": (lambda: with_missing(INTEGERS, pd.NA), "NA"),
    "list of booleans and NaN": (lambda: with_missing([True, False], NAN), "NaN"),
    "pandas object": (lambda: pd.Series(objects(STRINGS, None), dtype=object), "None"),
    "pandas str": (lambda: pd.Series(with_missing(STRINGS, None), dtype="str"), "NaN"),
    "pandas string": (lambda: pd.Series(with_missing(STRINGS, None), dtype="string"), "NA"),
    "pandas Int64": (lambda: pd.Series(with_missing(INTEGERS, None), dtype="Int64"), "NA"),
    "pandas boolean": (
        lambda: pd.Series(with_missing([True, False], None), dtype="boolean"),
        "NA",
    ),
    "pandas Float64": (lambda: pd.Series(with_missing([0, 1], None), dtype="Float64"), "NA"),
    "pandas category": (lambda: pd.Series(with_missing(STRINGS, None), dtype="category"), "NaN"),
    "pandas float": (lambda: pd.Series(with_missing([0.0, 1.0], None)), "NaN"),
    "pandas index": (lambda: pd.Index(objects(STRINGS, None), dtype=object), "None"),
    "pandas frame": (lambda: pd.DataFrame({"y": objects(INTEGERS, None)}), "None"),
    "pandas array": (lambda: pd.array(with_missing(INTEGERS, None), dtype="Int64"), "NA"),
    "polars strings": (lambda: polars(STRINGS), "null"),
    "polars integers": (lambda: polars(INTEGERS), "null"),
    "polars booleans": (lambda: polars([True, False]), "null"),
    "polars categories": (lambda: polars(STRINGS, "Categorical"), "null"),
    "arrow strings": (lambda: arrow(STRINGS), "null"),
    "arrow integers": (lambda: arrow(INTEGERS), "null"),
    "masked integers": (lambda: masked(INTEGERS), "masked values"),
    "masked strings": (lambda: masked(STRINGS), "masked values"),
}


@pytest.mark.parametrize(("make", "kind"), MISSING.values(), ids=MISSING)
def test_missing_labels_are_counted_and_found(make, kind):
    told = rf"contains .*{kind}.*: 3 of 80 labels are missing, in rows 1, 5, 6 \(counted from 0\)"
    with pytest.raises(ValueError, match=rf"`y` must hold one label for each row of X.*{told}"):
        NoisyLabelClassifier().fit(X, make())
    with pytest.raises(ValueError, match=told):
        as_label_array(make())


def refusals():
    fitted = NoisyLabelClassifier(max_epochs=1, random_state=0).fit(X, np.array(STRINGS)[clean])
    labels = objects(STRINGS, None)
    T = uniform_transition(2, 0.1)
    observed = np.array(STRINGS)[clean]
    return {
        "partial_fit": lambda: NoisyLabelClassifier().partial_fit(X, labels, classes=STRINGS),
        "label_posterior": lambda: fitted.label_posterior(X, labels),
        "label_quality": lambda: label_quality(fitted, X, labels),
        "label_quality cv": lambda: label_quality(fitted, X, labels, cv=2),
        "find_label_issues": lambda: find_label_issues(fitted, X, labels),
        "noise_test": lambda: noise_test(fitted, X, labels, cv=2),
        "likelihood": lambda: noisy_log_likelihood_scorer(fitted, X, labels),
        "corrected": lambda: noise_corrected_accuracy_scorer(fitted, X, labels),
        "observed": lambda: noise_corrected_accuracy(labels, observed, T),
        "predicted": lambda: noise_corrected_accuracy(observed, labels, T),
        "corrupt_labels": lambda: corrupt_labels(labels, T),
    }


@pytest.mark.parametrize("where", refusals())
def test_missing_labels_are_counted_wherever_labels_are_taken(where):
    with pytest.raises(ValueError, match=r"y.* 3 of 80 labels are missing, in rows 1, 5, 6 "):
        refusals()[where]()


def test_missing_classes_are_counted():
    for classes in (["a", "b", None], pd.Series(["a", "b", None], dtype="string")):
        with pytest.raises(
            ValueError, match=r"`classes` must .* 1 of 3 labels is missing, in row 2"
        ):
            NoisyLabelClassifier().partial_fit(X, np.array(STRINGS)[clean], classes=classes)


@pytest.mark.parametrize("n_missing", [1, 5, 6, 80])
def test_a_few_of_many_rows_are_listed(n_missing):
    labels = np.array(STRINGS, dtype=object)[clean]
    labels[:n_missing] = None
    rows = {
        1: "1 of 80 labels is missing, in row 0 (",
        5: "5 of 80 labels are missing, in rows 0, 1, 2, 3, 4 (",
        6: "6 of 80 labels are missing, in rows 0, 1, 2, 3, 4 and 1 more (",
        80: "80 of 80 labels are missing, in rows 0, 1, 2, 3, 4 and 75 more (",
    }
    assert rows[n_missing] in describe_missing(labels)


def test_labels_that_only_look_as_if_they_were_missing_are_taken():
    for labels in (["nan", "None"], ["", "NA"], ["null", "NaT"]):
        named = [labels[i] for i in clean]
        assert describe_missing(named) is None
        assert NoisyLabelClassifier(max_epochs=1).fit(X, named).classes_.tolist() == sorted(labels)


# --- Objects of one type ------------------------------------------------------------------------

UNIFORM = {
    "integers": ([3, 7], "i"),
    "numpy integers": ([np.int32(3), np.uint8(7)], "i"),
    "large integers": ([2**53, 2**53 + 1], "i"),
    "unsigned integers": ([2**63, 2**63 + 1], "u"),
    "booleans": ([False, True], "b"),
    "numpy booleans": ([np.False_, True], "b"),
    "floats": ([0.0, 1.0], "f"),
    "integers and floats": ([0, 1.0], "f"),
    "strings": (["a", "b"], "O"),
    "numpy strings": ([np.str_("a"), "b"], "O"),
}


@pytest.mark.parametrize(("values", "kind"), UNIFORM.values(), ids=UNIFORM)
@pytest.mark.parametrize("holder", [np.asarray, pd.Series, lambda v: pd.Series(v, dtype="object")])
def test_objects_of_one_type_are_labels_of_that_type(holder, values, kind):
    labels = np.empty(80, dtype=object)
    labels[:] = [values[i] for i in clean]
    fitted = NoisyLabelClassifier(max_epochs=5, lr=0.1, random_state=0).fit(X, holder(labels))
    assert fitted.classes_.dtype.kind == kind
    assert fitted.classes_.tolist() == values
    typed = np.array([values[i] for i in clean])
    expected = NoisyLabelClassifier(max_epochs=5, lr=0.1, random_state=0).fit(X, typed)
    assert_array_equal(fitted.predict(X), expected.predict(X))
    assert_array_equal(fitted.label_posterior(X, labels), expected.label_posterior(X, typed))
    assert noisy_log_likelihood_scorer(fitted, X, labels) == noisy_log_likelihood_scorer(
        expected, X, typed
    )
    assert fitted.score(X, typed) == expected.score(X, typed)
    stream = NoisyLabelClassifier(random_state=0)
    stream.partial_fit(X, holder(labels), classes=np.array(values, dtype=object))
    assert stream.classes_.tolist() == values


@pytest.mark.parametrize(
    ("dtype", "values", "kind"),
    [
        ("Int64", [3, 7], "i"),
        ("UInt8", [3, 7], "u"),
        ("boolean", [False, True], "b"),
        ("string", ["a", "b"], "O"),
        ("category", ["a", "b"], "O"),
        ("category", [3, 7], "i"),
    ],
)
def test_columns_of_pandas_without_missing_labels_are_taken(dtype, values, kind):
    labels = pd.Series([values[i] for i in clean], dtype=dtype)
    fitted = NoisyLabelClassifier(max_epochs=1).fit(X, labels)
    assert fitted.classes_.tolist() == values
    assert fitted.classes_.dtype.kind == kind


OTHERS = {
    "dates": ([datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)], "date"),
    "times": ([datetime.datetime(2020, 1, 1), datetime.datetime(2021, 1, 1)], "datetime"),
    "timestamps": ([pd.Timestamp(0), pd.Timestamp(1)], "Timestamp"),
    "numpy dates": ([np.datetime64("2020-01-01"), np.datetime64("2021-01-01")], "date"),
    "decimals": ([decimal.Decimal(1), decimal.Decimal(2)], "Decimal"),
    "tuples": ([(1, 2), (3, 4)], "tuple"),
    "bytes": ([b"a", b"b"], "bytes"),
    "strings and integers": (["a", 1], "int, str"),
    "booleans and integers": ([True, 2], "bool, int"),
    "complex": ([1j, 2j], "complex"),
    "integers that floats cannot hold": ([2**53 + 1, 0.0], "float, int"),
    "integers that nothing can hold": ([2**70, 0], "int"),
}


@pytest.mark.parametrize(("values", "named"), OTHERS.values(), ids=OTHERS)
def test_objects_of_other_types_are_named(values, named):
    labels = np.empty(80, dtype=object)
    for row, i in enumerate(clean):
        labels[row] = values[i]
    message = (
        rf"`y` must hold one label for each row of X, uniformly strings or numbers: got {named}"
    )
    with pytest.raises(TypeError, match=message):
        NoisyLabelClassifier().fit(X, labels)


@pytest.mark.parametrize("dtype", ["datetime64[ns]", "datetime64[D]", "timedelta64[s]"])
@pytest.mark.parametrize("holder", [np.asarray, pd.Series])
def test_columns_of_dates_are_named(holder, dtype):
    with pytest.raises(TypeError, match=r"got (datetime|timedelta)64\[.*Convert them to strings"):
        NoisyLabelClassifier().fit(X, holder(clean.astype(dtype)))


def test_fractions_are_numbers():
    halves = np.array([fractions.Fraction(1), fractions.Fraction(2)], dtype=object)[clean]
    with pytest.raises(TypeError, match="Fraction"):
        NoisyLabelClassifier().fit(X, halves)


def test_objects_of_continuous_numbers_are_refused_as_numbers_are():
    labels = np.random.RandomState(0).rand(80)
    for given in (labels, labels.astype(object)):
        with pytest.raises(ValueError, match="continuous"):
            NoisyLabelClassifier().fit(X, given)
