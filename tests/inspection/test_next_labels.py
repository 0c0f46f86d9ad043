"""Which labels to have checked next, and learned matrices against checked labels."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import label_quality, next_labels, noise_test
from sknoisy.inspection._trusted import gain_of_answers
from sknoisy.noise import corrupt_labels, pair_transition

QUICK = {"hidden_layer_sizes": (32,), "max_epochs": 25, "lr": 0.01, "random_state": 0}


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X, y = X[:1000] / 16, y[:1000]
    return X, y, corrupt_labels(y, pair_transition(10, 0.25), random_state=0)


@pytest.fixture(scope="module")
def fitted(digits):
    X, _, noisy = digits
    return NoisyLabelClassifier(**QUICK).fit(X, noisy)


def test_the_rows_named_first_are_wrong(digits, fitted):
    X, y, noisy = digits
    found = next_labels(fitted, X, noisy, 100)
    wrong = noisy[found.indices] != y[found.indices]
    assert wrong.mean() >= 3 * (noisy != y).mean()
    assert (found.suggested_labels == y[found.indices]).mean() > 0.8
    assert np.all(np.diff(found.expected_gain) <= 0)
    quality = label_quality(fitted, X, noisy)
    assert_array_equal(found.indices, np.argsort(quality, kind="stable")[:100])


def test_rows_that_were_checked_are_not_named_again(digits, fitted):
    X, _, noisy = digits
    first = next_labels(fitted, X, noisy, 40).indices
    trusted = np.zeros(len(noisy), dtype=bool)
    trusted[first] = True
    second = next_labels(fitted, X, noisy, 40, trusted=trusted).indices
    assert not np.intersect1d(first, second).size
    nearly_all = np.arange(len(noisy)) >= 3
    assert len(next_labels(fitted, X, noisy, 40, trusted=nearly_all).indices) == 3


def test_any_classifier_names_rows(digits):
    X, y, noisy = digits
    found = next_labels(LogisticRegression(max_iter=100), X[:400], noisy[:400], 20, cv=2)
    assert (noisy[found.indices] != y[found.indices]).mean() > 0.5


def test_the_annotator_who_knows_most_is_asked():
    posterior = np.array([[0.5, 0.5], [0.9, 0.1], [0.5, 0.5]])
    good, poor = np.array([[0.95, 0.05], [0.05, 0.95]]), np.array([[0.6, 0.4], [0.4, 0.6]])
    answered = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    gain, who = gain_of_answers(posterior, np.stack([good, poor]), answered)
    assert_array_equal(who, [0, 0, 1])
    np.testing.assert_allclose(gain, [0.45, 0.05, 0.1], atol=1e-9)


def test_answers_name_rows_and_annotators(digits):
    X, y, noisy = digits
    X, y = X[:300], y[:300]
    answers = np.stack(
        [noisy[:300], corrupt_labels(y, pair_transition(10, 0.1), random_state=1)], 1
    )
    answers[::3, 0] = -1
    answers[1::3, 1] = -1
    classifier = NoisyLabelClassifier(**{**QUICK, "max_epochs": 8}).fit(X, answers)
    found = next_labels(classifier, X, answers, 10)
    missing = answers[found.indices, found.annotators] == -1
    assert missing.all()


@pytest.mark.parametrize("n", [0, -1, 2.5, "many", True])
def test_n_must_be_a_number_of_rows(digits, fitted, n):
    X, _, noisy = digits
    with pytest.raises(ValueError, match="`n` must be a positive integer"):
        next_labels(fitted, X, noisy, n)


@pytest.mark.parametrize("known", [False, True], ids=["predicted", "observed"])
def test_checked_labels_agree_with_a_matrix_that_is_right(digits, known):
    X, y, noisy = digits
    trusted = np.arange(len(y)) % 8 == 0
    labels = np.where(trusted, y, noisy)
    model = make_pipeline(StandardScaler(), NoisyLabelClassifier(**QUICK))
    found = noise_test(
        model,
        X,
        labels,
        trusted=trusted,
        noisy_label=np.where(trusted, noisy, -1) if known else None,
    )
    assert found.pvalue > 0.01
    assert_array_equal(found.n_trusted, np.bincount(y[trusted]))


@pytest.mark.parametrize("known", [False, True], ids=["predicted", "observed"])
def test_checked_labels_find_classes_that_were_confused(digits, known):
    X, y, _ = digits
    noisy = corrupt_labels(y, pair_transition(10, 0.7), random_state=0)
    trusted = np.arange(len(y)) % 8 == 0
    labels = np.where(trusted, y, noisy)
    found = noise_test(
        NoisyLabelClassifier(**QUICK),
        X,
        labels,
        trusted=trusted,
        noisy_label=np.where(trusted, noisy, -1) if known else None,
    )
    assert found.pvalue < 0.01


def test_a_test_against_checked_labels_needs_some_and_a_noise_model(digits):
    X, _, noisy = digits
    classifier = NoisyLabelClassifier(**QUICK)
    for mask, number in ((np.zeros(len(noisy), bool), "none"), (np.ones(len(noisy), bool), "all")):
        with pytest.raises(ValueError, match=f"`trusted` must mark rows .* it marks {number}"):
            noise_test(classifier, X, noisy, trusted=mask)
    with pytest.raises(TypeError, match="noise model of a NoisyLabelClassifier"):
        noise_test(LogisticRegression(), X, noisy, trusted=noisy == 0)
