"""Training where some labels were checked."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sknoisy import NoisyLabelClassifier
from sknoisy.exceptions import UnreliableFitWarning
from sknoisy.noise import corrupt_labels, pair_transition

PAIR = pair_transition(10, 0.7)
QUICK = {"hidden_layer_sizes": (32,), "max_epochs": 25, "lr": 0.01, "random_state": 0}


@pytest.fixture(scope="module")
def digits():
    """Digits of which seven in ten labels are those of the next digit, five a class checked."""
    X, y = load_digits(return_X_y=True)
    X = X / 16
    noisy = corrupt_labels(y, PAIR, random_state=0)
    rng = np.random.RandomState(0)
    trusted = np.zeros(len(y), dtype=bool)
    for label in range(10):
        trusted[rng.permutation(np.flatnonzero(y[:1200] == label))[:5]] = True
    return X[:1200], y[:1200], noisy[:1200], trusted[:1200], X[1200:], y[1200:]


@pytest.fixture(scope="module")
def fitted(digits):
    X, y, noisy, trusted, _, _ = digits
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnreliableFitWarning)
        return NoisyLabelClassifier(**QUICK).fit(X, np.where(trusted, y, noisy), trusted=trusted)


def test_checked_labels_name_classes_that_are_mostly_labelled_as_another(digits, fitted):
    X, _, noisy, trusted, X_test, y_test = digits
    alone = NoisyLabelClassifier(**QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone.fit(X[~trusted], noisy[~trusted])
    assert alone.score(X_test, y_test) < 0.3
    assert fitted.score(X_test, y_test) > 0.85
    assert np.abs(fitted.transition_matrix_ - PAIR).sum(axis=1).mean() / 2 < 0.12
    assert fitted.noise_model_ == "s"


@pytest.mark.parametrize(
    "parameters",
    [{"noise_model": "c"}, {"method": "em"}, {"early_stopping": True}],
    ids=["c", "em", "held out"],
)
def test_so_they_do_in_other_ways_of_training(digits, parameters):
    X, y, noisy, trusted, X_test, y_test = digits
    classifier = NoisyLabelClassifier(**{**QUICK, **parameters})
    classifier.fit(X, np.where(trusted, y, noisy), trusted=trusted)
    assert classifier.score(X_test, y_test) > 0.8


def test_the_observed_label_of_a_checked_row_is_evidence(digits):
    X, y, noisy, trusted, X_test, y_test = digits
    labels = np.where(trusted, y, noisy).astype(object)
    before = np.where(trusted, noisy, None)
    classifier = NoisyLabelClassifier(**QUICK)
    classifier.fit(X, labels.astype(int), trusted=trusted, noisy_label=before)
    assert classifier.score(X_test, y_test) > 0.85
    # The same, as answers of two annotators of whom one is trusted.
    answers = np.stack([noisy, np.where(trusted, y, -1)], axis=1)
    two = clone(classifier).fit(X, answers, trusted=answers * [0, 1] + [-1, 0] >= 0)
    assert_allclose(two.predict_proba(X_test), classifier.predict_proba(X_test), atol=1e-6)


def test_where_all_rows_are_checked_training_is_plain(digits):
    X, y, *_ = digits
    X, y = X[:300], y[:300]
    plain = NoisyLabelClassifier(**{**QUICK, "noise_model": None}).fit(X, y)
    checked = NoisyLabelClassifier(**QUICK).fit(X, y, trusted=np.ones(300, dtype=bool))
    assert_array_equal(checked.predict_proba(X), plain.predict_proba(X))
    assert checked.noise_model_ is None


def test_a_mask_without_a_row_is_none(digits):
    X, _, noisy, *_ = digits
    X, noisy = X[:200], noisy[:200]
    quick = {**QUICK, "max_epochs": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        without = NoisyLabelClassifier(**quick).fit(X, noisy)
        empty = NoisyLabelClassifier(**quick).fit(X, noisy, trusted=np.zeros(200, dtype=bool))
    assert_array_equal(empty.predict_proba(X), without.predict_proba(X))


@pytest.mark.filterwarnings("ignore::sknoisy.exceptions.UnreliableFitWarning")
def test_one_checked_class_and_checked_labels_that_nobody_observed(digits):
    X, y, noisy, *_ = digits
    X, y, noisy = X[:400], y[:400], noisy[:400].copy()
    noisy[noisy == 9] = 8
    trusted = (y == 9) & (np.arange(400) < 200)
    quick = {**QUICK, "max_epochs": 5}
    classifier = NoisyLabelClassifier(**quick)
    classifier.fit(X, np.where(trusted, y, noisy), trusted=trusted)
    assert 9 in classifier.classes_
    assert np.isfinite(classifier.predict_proba(X)).all()


def test_a_known_matrix_goes_with_checked_labels(digits):
    X, y, noisy, trusted, X_test, y_test = digits
    known = NoisyLabelClassifier(transition_init=PAIR, learn_transition=False, **QUICK)
    known.fit(X, np.where(trusted, y, noisy), trusted=trusted)
    assert known.score(X_test, y_test) > 0.85
    assert_allclose(known.transition_matrix_, PAIR, atol=1e-6)


def test_checked_rows_are_routed_and_sliced(digits):
    X, y, noisy, trusted, *_ = digits
    labels = np.where(trusted, y, noisy)
    model = make_pipeline(StandardScaler(), NoisyLabelClassifier(**{**QUICK, "max_epochs": 3}))
    found = cross_validate(
        model, X, labels, cv=2, params={"noisylabelclassifier__trusted": trusted}
    )
    assert len(found["test_score"]) == 2


def test_weights_of_checked_rows_count(digits):
    X, y, noisy, trusted, *_ = digits
    X, y, noisy, trusted = X[:300], y[:300], noisy[:300], trusted[:300]
    labels = np.where(trusted, y, noisy)
    left_out = np.where(trusted, 0.0, 1.0)
    quick = {**QUICK, "max_epochs": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        without = NoisyLabelClassifier(**quick).fit(X, labels, left_out, trusted=trusted)
        plain = NoisyLabelClassifier(**quick).fit(X[~trusted], labels[~trusted])
    assert_allclose(without.predict_proba(X), plain.predict_proba(X), atol=1e-4)


def test_a_stream_takes_its_names_from_checked_labels():
    rng = np.random.RandomState(0)
    y = rng.randint(3, size=9000)
    X = rng.normal(size=(9000, 2)) + 6 * np.array([[0, 0], [0, 1], [1, 0]])[y]
    noisy = corrupt_labels(y, pair_transition(3, 0.7), random_state=0)
    trusted = rng.uniform(size=9000) < 0.02
    labels = np.where(trusted, y, noisy)
    stream = NoisyLabelClassifier(n_iter_no_change=1, lr=0.01, random_state=0)
    for rows in np.split(np.arange(9000), 9):
        stream.partial_fit(X[rows], labels[rows], classes=range(3), trusted=trusted[rows])
    assert stream.noise_model_ == "s"
    assert stream.score(X, y) > 0.9


def test_answers_with_checked_rows(digits):
    X, y, _, trusted, X_test, y_test = digits
    answers = np.stack([corrupt_labels(y, PAIR, random_state=seed) for seed in range(3)], axis=1)
    answers = np.where(trusted[:, None], y[:, None], answers)
    quick = {**QUICK, "max_epochs": 12}
    checked = NoisyLabelClassifier(**quick).fit(X, answers, trusted=trusted)
    alone = NoisyLabelClassifier(**quick).fit(X[~trusted], answers[~trusted])
    assert checked.score(X_test, y_test) > max(0.8, alone.score(X_test, y_test))
    assert_array_equal(checked.annotator_answer_counts_, np.repeat((~trusted).sum(), 3))


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"trusted": np.ones(3, dtype=bool)}, ValueError, r"`trusted` .* shape \(1200,\)"),
        ({"trusted": np.arange(1200)}, TypeError, "`trusted` must be a boolean array"),
        ({"trusted": ["yes"] * 1200}, TypeError, "`trusted` must be a boolean array"),
        ({"noisy_label": np.zeros(3)}, ValueError, "`noisy_label` must hold a label for each row"),
        ({"noisy_label": "other"}, ValueError, "`noisy_label` must be the label in `y`"),
    ],
)
def test_bad_input_is_refused_by_name(digits, more, error, message):
    X, _, noisy, *_ = digits
    if isinstance(more.get("noisy_label"), str):
        more = {"noisy_label": (noisy + 1) % 10}
    with pytest.raises(error, match=message):
        NoisyLabelClassifier(**QUICK).fit(X, noisy, **more)


def test_answers_of_a_checked_row_must_agree(digits):
    X, _, noisy, trusted, *_ = digits
    answers = np.stack([noisy, (noisy + 1) % 10], axis=1)
    with pytest.raises(ValueError, match="`trusted` must mark answers that say the same"):
        NoisyLabelClassifier(**QUICK).fit(X, answers, trusted=trusted)
    with pytest.raises(ValueError, match="`noisy_label` must be None with several answers"):
        NoisyLabelClassifier(**QUICK).fit(X, answers, noisy_label=noisy)


@pytest.mark.parametrize("n_trusted", [1, 230, 290])
def test_one_checked_row_and_few_others(digits, n_trusted):
    X, y, noisy, *_ = digits
    X, y, noisy = X[:300], y[:300], noisy[:300]
    trusted = np.arange(300) < n_trusted
    quick = {**QUICK, "max_epochs": 2}
    for more in ({}, {"early_stopping": True}):
        classifier = NoisyLabelClassifier(**{**quick, **more})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            classifier.fit(X, np.where(trusted, y, noisy), trusted=trusted)
        assert np.isfinite(classifier.predict_proba(X)).all()
        said = any("10 rows are too few to estimate" in str(one.message) for one in caught)
        assert said == (n_trusted == 290)
