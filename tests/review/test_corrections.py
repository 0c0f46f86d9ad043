"""Reviewed labels, back into the data."""

import numpy as np
import pandas as pd
import pytest

from sknoisy.inspection import apply_corrections

Y = np.array([3, 1, 2, 2, 1])


def written(tmp_path, text):
    path = tmp_path / "reviewed.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("as_frame", [False, True])
def test_only_rows_that_were_decided_change(tmp_path, as_frame):
    path = written(tmp_path, "row,observed_labels,label\n3,2,1\n0,3,3\n2,2,\n")
    reviewed = pd.read_csv(path) if as_frame else path
    before = Y.copy()
    corrected, looked_at = apply_corrections(Y, reviewed, return_reviewed=True)
    assert corrected.dtype == Y.dtype
    np.testing.assert_array_equal(corrected, [3, 1, 2, 1, 1])
    np.testing.assert_array_equal(looked_at, [True, False, False, True, False])
    np.testing.assert_array_equal(Y, before)


@pytest.mark.parametrize(
    "y",
    [
        np.array([1.0, 2.5, 1.0]),
        np.array([True, False, True]),
        np.array(["a", "b\nc", "a"]),
        np.array(["a", 'say "b", now', "a"], dtype=object),
    ],
)
def test_labels_of_all_types_survive_the_file(tmp_path, y):
    path = tmp_path / "reviewed.csv"
    pd.DataFrame({"row": [0], "observed_labels": [y[0]], "label": [y[1]]}).to_csv(path, index=False)
    corrected = apply_corrections(y, path)
    assert corrected.dtype == y.dtype
    assert corrected.tolist() == [y[1], y[1], y[2]]


def test_a_series_keeps_index_name_and_type():
    y = pd.Series(["a", "b", "a"], index=[7, 8, 9], name="label", dtype="category")
    corrected = apply_corrections(y, pd.DataFrame({"row": [1], "label": ["a"]}))
    pd.testing.assert_series_equal(
        corrected, pd.Series(["a"] * 3, index=y.index, name="label").astype(y.dtype)
    )
    assert y.iloc[1] == "b"


def test_longer_names_are_not_cut_off():
    corrected = apply_corrections(
        ["a", "b"], [{"row": 0, "label": "abc"}], classes=["a", "b", "abc"]
    )
    assert corrected.tolist() == ["abc", "b"]


def test_nothing_decided_is_nothing_changed(tmp_path):
    corrected = apply_corrections(Y, written(tmp_path, "row,label\n"))
    np.testing.assert_array_equal(corrected, Y)
    assert corrected is not Y


@pytest.mark.parametrize(
    ("reviewed", "match"),
    [
        ([{"row": 5, "label": 1}], "positions from 0 to 4; got 5"),
        ([{"row": -1, "label": 1}], "positions from 0 to 4; got -1"),
        ([{"row": 1.5, "label": 1}], "got 1.5"),
        ([{"row": "first", "label": 1}], "got 'first'"),
        ([{"row": 0, "label": 9}], r"labels among \[1, 2, 3\]; got 9"),
        ([{"row": 0, "label": "1 "}, {"row": 0, "label": 2}], "two labels for row 0: 1, 2"),
        ([{"row": 0, "label": 1, "observed_labels": 2}], "row 0 was observed as 2, and `y` has 3"),
        ([{"rows": 0, "label": 1}], r"columns row and label; got \['rows', 'label'\]"),
        ([(0, 1)], "CSV file, a DataFrame or dictionaries"),
    ],
)
def test_reviews_that_cannot_be_meant_are_refused(reviewed, match):
    with pytest.raises(ValueError, match=match):
        apply_corrections(Y, reviewed)


def test_labels_of_several_columns_are_refused():
    with pytest.raises(ValueError, match="one label for each row"):
        apply_corrections(np.zeros((3, 2)), [])
