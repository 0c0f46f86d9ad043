"""Tables of answers, agreement, and the consensus of annotators without features."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal

from sknoisy.crowd import dawid_skene, from_long, krippendorff_alpha, majority_vote, to_long
from sknoisy.noise import uniform_transition

LONG = pd.DataFrame(
    {
        "item": ["b", "a", "b", "c", "a"],
        "annotator": ["ann", "bob", "cid", "bob", "ann"],
        "label": ["x", "y", "y", "x", "y"],
    }
)


def simulated(n_items=400, n_classes=4, qualities=(0.9, 0.6, 0.6, 0.25), n_answers=3, seed=0):
    """Return true labels and the answers of some of the annotators to each item."""
    rng = np.random.RandomState(seed)
    y = rng.randint(n_classes, size=n_items)
    matrices = [uniform_transition(n_classes, 1 - quality) for quality in qualities]
    answers = np.full((n_items, len(qualities)), -1)
    for item, label in enumerate(y):
        for annotator in rng.choice(len(qualities), n_answers, replace=False):
            answers[item, annotator] = rng.choice(n_classes, p=matrices[annotator][label])
    return y, answers, np.array(matrices)


def test_a_long_table_becomes_wide_in_the_order_of_the_items():
    wide = from_long(LONG)
    assert wide.index.tolist() == ["b", "a", "c"]
    assert wide.columns.tolist() == ["ann", "bob", "cid"]
    assert wide.to_numpy().tolist() == [["x", None, "y"], ["y", "y", None], [None, "x", None]]


def test_integers_stay_integers_and_minus_one_is_no_answer():
    table = LONG.assign(label=[3, 1, 1, 3, 1])
    wide = from_long(table)
    assert wide.to_numpy().dtype == np.int64
    assert wide.loc["c"].tolist() == [-1, 3, -1]


@pytest.mark.parametrize("labels", [["x", "y", "y", "x", "y"], [3, 1, 1, 3, 1]])
@pytest.mark.parametrize("compact", [False, True])
def test_a_long_table_comes_back_from_either_form(labels, compact):
    table = LONG.assign(label=labels)
    form = from_long(table, compact=compact)
    back = to_long(*form) if compact else to_long(form)
    order = ["item", "annotator"]
    assert_frame_equal(
        back.sort_values(order, ignore_index=True),
        table.sort_values(order, ignore_index=True),
        check_dtype=False,
    )


def test_the_compact_form_has_as_many_columns_as_the_item_with_the_most_answers():
    answers, annotators = from_long(LONG, compact=True)
    assert answers.shape == annotators.shape == (3, 2)
    assert annotators.loc["c"].tolist() == ["bob", None]


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, {"label": "name"}, "`label` must name a column of `table`"),
        ({"label": [None, "y", "y", "x", "y"]}, {}, "no missing values; column 'label'"),
        ({"annotator": ["ann"] * 5}, {}, "of annotator 'ann' and item 'b'"),
        ({}, {"missing_label": "x"}, "`missing_label` must not be one of the labels"),
        ({"label": [1, 2, 3, 1, 2]}, {"missing_label": "none"}, "`missing_label` must be a number"),
    ],
)
def test_a_table_that_cannot_be_turned_is_refused(change, arguments, message):
    with pytest.raises(ValueError, match=message):
        from_long(LONG.assign(**change), **arguments)


def test_the_majority_wins_and_ties_are_drawn():
    answers = np.tile([[0, 1, -1]], (1000, 1))
    labels = majority_vote(answers, random_state=0)
    assert 0.4 < labels.mean() < 0.6
    assert majority_vote([["a", "a", "b"], [None, None, "b"]]).tolist() == ["a", "b"]
    assert majority_vote([["a"], [None]], missing_label=None).tolist() == ["a", None]


def test_alpha_of_a_published_example():
    # K. Krippendorff, "Computing Krippendorff's alpha-reliability", 2011, section C: nominal .743
    first = [1, 2, 3, 3, 2, 1, 4, 1, 2, -1, -1, -1]
    second = [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, -1, 3]
    third = [-1, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, -1]
    fourth = [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, -1]
    answers = np.array([first, second, third, fourth]).T
    assert_allclose(krippendorff_alpha(answers), 0.743, atol=5e-4)


def test_alpha_does_not_depend_on_the_form():
    _, answers, _ = simulated()
    order = np.argsort(answers < 0, axis=1, kind="stable")
    compact = np.take_along_axis(answers, order, axis=1)[:, :3]
    ids = order[:, :3]
    assert krippendorff_alpha(answers) == pytest.approx(krippendorff_alpha(compact, ids))


def test_alpha_of_chance_is_near_zero_and_of_a_single_class_undefined():
    answers = np.random.RandomState(0).randint(3, size=(3000, 3))
    assert abs(krippendorff_alpha(answers)) < 0.03
    assert np.isnan(krippendorff_alpha(np.ones((5, 2), dtype=int)))
    with pytest.raises(ValueError, match="two answers"):
        krippendorff_alpha([[0, -1], [-1, 1]])


def test_dawid_skene_finds_the_annotators_and_beats_the_majority():
    y, answers, matrices = simulated()
    found = dawid_skene(answers)
    quality = np.diagonal(found.transitions, axis1=1, axis2=2).mean(axis=1)
    assert_allclose(quality, np.diagonal(matrices, axis1=1, axis2=2).mean(axis=1), atol=0.12)
    majority = majority_vote(answers, random_state=0)
    assert np.mean(found.labels == y) > np.mean(majority == y) + 0.02
    assert_allclose(found.posterior.sum(axis=1), 1)
    assert_allclose(found.transitions.sum(axis=2), 1)


def test_a_strong_prior_makes_all_annotators_alike():
    _, answers, _ = simulated()
    found = dawid_skene(answers, annotator_prior=1e9)
    assert_allclose(found.transitions, np.broadcast_to(found.transitions[:1], (4, 4, 4)), atol=1e-5)


def test_dawid_skene_takes_names_and_strings():
    _, answers, _ = simulated(n_items=100)
    names = np.array(["cat", "dog", "eel", "fox"], dtype=object)
    words = np.where(answers < 0, None, names[answers])
    frame = pd.DataFrame(words, columns=list("abcd"))
    found = dawid_skene(frame)
    assert found.annotators.tolist() == list("abcd")
    assert_array_equal(found.labels, names[dawid_skene(answers).labels])


def test_dawid_skene_refuses_a_prior_that_is_none():
    with pytest.raises(ValueError, match="`annotator_prior` must be a positive number"):
        dawid_skene([[0, 1]], annotator_prior=0)
