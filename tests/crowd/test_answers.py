"""Validation and storage of several answers a row."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from sknoisy._crowd.answers import Answers, check_answers, has_answers

WIDE = np.array([[0, -1, 2], [-1, -1, -1], [2, 2, -1], [-1, 0, 0]])


def test_answers_are_kept_one_after_the_other():
    answers, classes = check_answers(WIDE)
    assert classes.tolist() == [0, 2]
    assert answers.counts.tolist() == [2, 0, 2, 2]
    assert answers.row.tolist() == [0, 0, 2, 2, 3, 3]
    assert answers.annotator.tolist() == [0, 2, 0, 1, 1, 2]
    assert answers.label.tolist() == [0, 1, 1, 1, 0, 0]
    assert answers.answers_of_annotators().tolist() == [2, 2, 2]


def test_memory_grows_with_the_answers_and_not_with_the_annotators():
    n_rows = 2000
    ids = np.arange(n_rows)[:, None] + np.array([[0, 1]])
    answers, _ = check_answers(np.tile([0, 1], (n_rows, 1)), ids)
    assert answers.n_annotators == n_rows + 1
    held = (answers.bounds, answers.annotator, answers.label, answers.annotators)
    assert sum(array.nbytes for array in held) < 100 * n_rows


@pytest.mark.parametrize("rows", [np.array([3, 0, 1]), np.array([True, False, False, True])])
def test_rows_are_taken_in_their_order(rows):
    answers, _ = check_answers(WIDE)
    taken = answers.take(rows)
    assert_array_equal(taken.votes(), answers.votes()[rows])
    assert_array_equal(taken.padded(slice(None), 2), answers.padded(np.arange(4)[rows], 2))


def test_codes_are_padded_with_a_code_of_nobody():
    answers, _ = check_answers(WIDE)
    assert answers.padded(slice(0, 2)).tolist() == [[0, 5], [6, 6]]
    assert answers.padded(np.array([1])).tolist() == [[6]]


def test_no_answer_at_all_has_codes_too():
    answers, _ = check_answers(np.full((2, 2), -1), training=False, classes=np.array([0, 1]))
    assert answers.padded(slice(None)).tolist() == [[4], [4]]


def test_chunks_are_joined():
    first, classes = check_answers(WIDE[:2])
    second, _ = check_answers(WIDE[2:], classes=classes, known_annotators=first.annotators)
    both, _ = check_answers(WIDE)
    joined = Answers.joined([first, second])
    assert_array_equal(joined.padded(slice(None)), both.padded(slice(None)))


def test_classes_that_nobody_names_are_dropped():
    answers, _ = check_answers(WIDE)
    one = answers.take(np.array([0, 3])).take(np.array([1]))
    kept = one.with_classes(np.unique(one.label))
    assert kept.n_classes == 1
    assert set(kept.label.tolist()) == {0}


@pytest.mark.parametrize(
    ("y", "missing_label"),
    [
        (np.array([[0.0, np.nan], [np.nan, 1.0]]), -1),
        (np.array([["a", None], [None, "b"]], dtype=object), -1),
        ([["a", "none"], ["none", "b"]], "none"),
        (pd.DataFrame({"p": ["a", None], "q": [None, "b"]}), None),
        (pd.DataFrame({"p": [0, pd.NA], "q": [pd.NA, 1]}, dtype="Int64"), -1),
        (np.array([[9, -9], [-9, 8]]), -9),
    ],
    ids=["nan", "None", "string", "frame", "nullable", "number"],
)
def test_what_marks_a_missing_answer(y, missing_label):
    answers, classes = check_answers(y, missing_label=missing_label)
    assert answers.counts.tolist() == [1, 1]
    assert len(classes) == 2


def test_columns_of_a_frame_name_the_annotators():
    answers, _ = check_answers(pd.DataFrame(WIDE, columns=["x", "y", "z"]))
    assert answers.annotators.tolist() == ["x", "y", "z"]


def test_both_forms_say_the_same():
    compact = np.array([[0, 2], [-1, -1], [2, 2], [0, 0]])
    ids = np.array([[0, 2], [9, 9], [0, 1], [1, 2]])
    answers, _ = check_answers(compact, ids)
    wide, _ = check_answers(WIDE)
    assert answers.annotators.tolist() == [0, 1, 2]
    assert_array_equal(answers.padded(slice(None)), wide.padded(slice(None)))


def test_annotators_to_come_are_put_after_those_that_are_known():
    answers, _ = check_answers([[0, 1]], [["new", "b"]], known_annotators=np.array(["b", "c"]))
    assert answers.annotators.tolist() == ["b", "c", "new"]
    assert answers.annotator.tolist() == [2, 0]
    assert answers.with_others_together(2).annotator.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        ([1, 2], False),
        ([[1], [2]], False),
        ([[1, 2], [2, 1]], True),
        (pd.DataFrame(WIDE), True),
        (sparse.csr_array(np.eye(3)), False),
        ([[1, 2], [3]], False),
        (None, False),
    ],
)
def test_several_columns_are_answers(y, expected):
    assert has_answers(y) is expected
    assert has_answers(y, [1, 2]) is True


@pytest.mark.parametrize(
    ("y", "arguments", "message"),
    [
        (WIDE, {"annotators": np.zeros((4, 2))}, r"`annotators` must .* shape of `y`, \(4, 3\)"),
        (WIDE, {"annotators": np.where(WIDE == 2, None, "a")}, "missing for 3 of 6 answers"),
        (WIDE, {"n_rows": 5}, "a row for each row of X, 5; got 4 rows"),
        (WIDE / 2.5, {}, "continuous numbers"),
        (np.full((3, 2), -1), {}, "at least one answer"),
        (WIDE, {"classes": np.array([0, 1])}, r"seen in fit, \[0, 1\]; got \[2\]"),
        (np.zeros((2, 2, 2)), {}, r"shape \(2, 2, 2\)"),
        (np.eye(3)[[0, 1, 2, 0]], {}, "indicators of 3 classes"),
    ],
    ids=["shape", "nobody", "rows", "floats", "none", "unseen", "three", "one-hot"],
)
def test_answers_that_do_not_fit_are_refused(y, arguments, message):
    with pytest.raises(ValueError, match=message):
        check_answers(y, **arguments)


def test_ties_of_the_majority_are_drawn_from_the_generator():
    answers, _ = check_answers(np.tile([[0, 1]], (500, 1)))
    first = answers.majority(np.random.RandomState(0))
    assert 0.4 < first.mean() < 0.6
    assert_array_equal(first, answers.majority(np.random.RandomState(0)))
