"""Several answers a row, from fit to everything that is done with one label a row."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_validate, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback
from torch.utils.data import DataLoader

from sknoisy import NoisyLabelClassifier, load_model, save_model
from sknoisy.metrics import noisy_log_likelihood_scorer
from sknoisy.noise import pair_transition, uniform_transition

#: An expert, three novices, one who answers anything, and one who names the next class.
MATRICES = np.array(
    [
        uniform_transition(10, 0.1),
        *[uniform_transition(10, 0.4)] * 3,
        np.full((10, 10), 0.1),
        pair_transition(10, 0.9),
    ]
)
NAMES = np.array(["ann", "bob", "cid", "dee", "eve", "fay"])


def answers_of(y, n_answers, seed):
    """Return answers of shape (n_rows, 6), so many of each row and -1 elsewhere."""
    rng = np.random.RandomState(seed)
    table = np.full((len(y), len(MATRICES)), -1)
    for row, label in enumerate(y):
        for annotator in rng.choice(len(MATRICES), n_answers, replace=False):
            table[row, annotator] = rng.choice(10, p=MATRICES[annotator][label])
    return table


def compact(table):
    """Return the same answers and who gave them, in as many columns as a row has answers."""
    width = int((table >= 0).sum(axis=1).max())
    order = np.argsort(table < 0, axis=1, kind="stable")[:, :width]
    return np.take_along_axis(table, order, axis=1), order


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.3, stratify=y, random_state=0)
    return X, y, answers_of(y, 2, seed=0), X_test, y_test


@pytest.fixture(scope="module")
def fitted(digits):
    X, _, answers, _, _ = digits
    return NoisyLabelClassifier(random_state=0).fit(X, pd.DataFrame(answers, columns=NAMES))


def small(**parameters):
    """Return a classifier that is fitted in no time."""
    return NoisyLabelClassifier(
        hidden_layer_sizes=(16,), max_epochs=5, early_stopping=False, random_state=0, **parameters
    )


@pytest.fixture(scope="module")
def few(digits):
    X, _, answers, _, _ = digits
    return X[:200], answers[:200]


def test_annotators_are_told_apart_and_the_majority_is_beaten(digits, fitted):
    X, y, answers, X_test, y_test = digits
    majority = NoisyLabelClassifier(noise_model=None, random_state=0).fit(X, answers)
    assert fitted.score(X_test, y_test) > 0.9
    assert fitted.score(X_test, y_test) > majority.score(X_test, y_test) + 0.05
    assert fitted.annotators_.tolist() == NAMES.tolist()
    right = np.array([np.mean(y[a >= 0] == a[a >= 0]) for a in answers.T])
    assert_allclose(fitted.annotator_quality_, right, atol=0.05)
    assert np.all(fitted.annotator_quality_error_ < 0.05)
    errors = np.abs(fitted.annotator_transitions_ - MATRICES).sum(axis=2).mean(axis=1) / 2
    assert np.all(errors < 0.25)


def test_the_attributes_of_one_label_are_means_over_the_answers(digits, fitted):
    _, _, answers, _, _ = digits
    weights = (answers >= 0).sum(axis=0)
    mean = np.average(fitted.annotator_transitions_, axis=0, weights=weights)
    assert_allclose(fitted.transition_matrix_, mean, atol=1e-5)
    rate = fitted.class_prior_ @ (1 - np.diag(fitted.transition_matrix_))
    assert fitted.noise_rate_ == pytest.approx(rate)
    assert fitted.noise_model_ == "s"
    starts = [candidate["start"] for candidate in fitted.selection_]
    assert starts == [None, "dawid_skene", "predicted"]


def test_the_consensus_is_better_than_the_network_and_calibrated(digits, fitted):
    X, y, answers, _, _ = digits
    posterior = fitted.label_posterior(X, answers, annotators=np.tile(NAMES, (len(X), 1)))
    right = posterior.argmax(axis=1) == y
    assert right.mean() > 0.95
    confidence = posterior.max(axis=1)
    bins = np.minimum((confidence * 10).astype(int), 9)
    gaps = [abs(confidence[bins == b].sum() - right[bins == b].sum()) for b in range(10)]
    assert sum(gaps) / len(right) < 0.05


def test_em_learns_from_answers_too(digits):
    X, _, answers, X_test, y_test = digits
    classifier = NoisyLabelClassifier(method="em", random_state=0).fit(X, answers)
    assert classifier.score(X_test, y_test) > 0.9


@pytest.mark.parametrize("method", ["direct", "em"])
def test_a_network_that_has_learned_little_does_not_confuse_the_classes(digits, method):
    X, y, answers, _, _ = digits
    keywords = {"hidden_layer_sizes": (16,), "max_epochs": 12, "early_stopping": False}
    plain = NoisyLabelClassifier(noise_model=None, random_state=0, **keywords).fit(X, answers)
    classifier = NoisyLabelClassifier(method=method, random_state=0, **keywords).fit(X, answers)
    assert classifier.score(X, y) > plain.score(X, y) - 0.02


def test_known_matrices_are_kept(digits):
    X, _, answers, X_test, y_test = digits
    classifier = NoisyLabelClassifier(
        transition_init=MATRICES, learn_transition=False, random_state=0
    ).fit(X, answers)
    assert_allclose(classifier.annotator_transitions_, MATRICES, atol=1e-5)
    assert classifier.score(X_test, y_test) > 0.9


def test_both_forms_give_the_same_fit(few):
    X, answers = few
    labels, ids = compact(answers)
    wide = small().fit(X, answers)
    assert_array_equal(
        wide.predict_proba(X), small().fit(X, labels, annotators=ids).predict_proba(X)
    )
    assert_array_equal(
        wide.label_posterior(X, answers), wide.label_posterior(X, labels, annotators=ids)
    )


def test_one_answer_a_row_is_one_label_a_row(digits):
    X, y, _, _, _ = digits
    answers = answers_of(y, 1, seed=1)[:300]
    one = small().fit(X[:300], answers)
    plain = small().fit(X[:300], answers.max(axis=1))
    assert_array_equal(one.predict_proba(X), plain.predict_proba(X))
    assert_array_equal(one.transition_matrix_, plain.transition_matrix_)
    assert one.annotator_transitions_.shape == (6, 10, 10)


def test_a_row_without_an_answer_changes_nothing_but_can_be_asked_about(few):
    X, answers = few
    more = np.vstack([answers, np.full((20, 6), -1)])
    twice = np.vstack([X, X[:20]])
    first, second = small().fit(X, answers), small().fit(twice, more)
    assert_array_equal(first.classes_, second.classes_)
    assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    asked = second.label_posterior(twice, more)[-20:]
    assert_allclose(asked, second.predict_proba(X[:20]), atol=1e-6)


def test_weight_zero_is_as_no_row(few):
    X, answers = few
    weight = np.r_[np.ones(180), np.zeros(20)]
    weighted = small().fit(X, answers, sample_weight=weight)
    fewer = small().fit(X[:180], answers[:180])
    assert_array_equal(weighted.annotator_answer_counts_, (answers[:180] >= 0).sum(axis=0))
    plain = small(noise_model=None).fit(X, answers, sample_weight=np.linspace(0.1, 3, 200))
    assert_array_equal(plain.annotator_answer_counts_, (answers >= 0).sum(axis=0))
    assert_allclose(weighted.predict_proba(X), fewer.predict_proba(X), atol=1e-3)


def test_labels_are_strings_and_missing_ones_none(few):
    X, answers = few
    words = np.where(answers < 0, None, np.array([f"digit {i}" for i in range(10)])[answers])
    named, numbered = small().fit(X, words), small().fit(X, answers)
    assert_array_equal(named.predict_proba(X), numbered.predict_proba(X))
    assert named.classes_.tolist() == [f"digit {i}" for i in range(10)]


def test_annotators_who_are_new_have_the_mean_matrix(few):
    X, answers = few
    classifier = small().fit(X, answers)
    found = classifier.label_posterior(X[:5], np.full((5, 1), 3), annotators=np.full((5, 1), 99))
    column = classifier.transition_matrix_[:, 3] ** classifier.answer_power_
    expected = classifier.predict_proba(X[:5]) * column
    assert_allclose(found, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)
    single = classifier.label_posterior(X[:5], np.full(5, 3))
    expected = classifier.predict_proba(X[:5]) * classifier.transition_matrix_[:, 3]
    assert_allclose(single, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)


def test_a_loader_of_torch_and_a_module_of_the_user_take_answers(few):
    X, answers = few
    module = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU())
    own = NoisyLabelClassifier(
        module, iterator_train=DataLoader, max_epochs=2, early_stopping=True, random_state=0
    ).fit(X.astype(np.float32), answers)
    assert own.annotator_transitions_.shape == (6, 10, 10)


def test_a_model_comes_back_from_a_file_and_a_pickle(few, tmp_path):
    X, answers = few
    classifier = small().fit(X, answers)
    save_model(classifier, tmp_path / "model.skops")
    for copied in (load_model(tmp_path / "model.skops"), pickle.loads(pickle.dumps(classifier))):
        assert_array_equal(
            copied.label_posterior(X, answers), classifier.label_posterior(X, answers)
        )


def test_warm_start_goes_on_with_the_annotators_and_takes_new_ones(few):
    X, answers = few
    classifier = small(warm_start=True).fit(X[:150], answers[:150, :5])
    n_epochs = classifier.n_iter_
    classifier.fit(X, answers)
    assert classifier.annotators_.tolist() == [0, 1, 2, 3, 4, 5]
    assert classifier.n_iter_ > n_epochs
    classifier.fit(X, answers.max(axis=1))
    assert classifier.noise_model_ == "s"


def test_a_stream_meets_annotators_one_after_the_other(digits):
    X, y, answers, X_test, y_test = digits
    classifier = NoisyLabelClassifier(batch_size=32, random_state=0)
    for epoch in range(5):
        for start in range(0, len(X), 250):
            rows = slice(start, start + 250)
            labels, ids = compact(answers[rows, : 5 if epoch == 0 else 6])
            classifier.partial_fit(X[rows], labels, annotators=NAMES[ids], classes=np.arange(10))
    assert classifier.annotators_.tolist() == NAMES.tolist()
    assert classifier.score(X_test, y_test) > 0.75
    assert np.argmax(classifier.annotator_quality_) == 0
    assert np.all(classifier.annotator_quality_[4:] < 0.4)
    with pytest.raises(ValueError, match="must say who gave each label"):
        classifier.partial_fit(X[:50], y[:50])


def test_a_stream_goes_on_after_fit(few):
    X, answers = few
    classifier = small().fit(X[:150], answers[:150])
    before = classifier.annotator_transitions_
    classifier.partial_fit(X[150:], answers[150:])
    assert 0 < np.abs(classifier.annotator_transitions_ - before).max() < 0.3


def test_searches_and_pipelines_score_single_answers(few):
    X, answers = few
    search = GridSearchCV(
        make_pipeline(StandardScaler(), small()),
        {"noisylabelclassifier__noise_model": [None, "s"]},
        scoring=noisy_log_likelihood_scorer,
        cv=2,
        error_score="raise",
    ).fit(X, answers)
    assert np.all(search.cv_results_["mean_test_score"] < 0)
    assert search.best_estimator_[-1].annotators_.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("weighted", [False, True])
def test_the_score_is_the_mean_over_answers(few, weighted):
    X, answers = few
    classifier = small().fit(X, answers)
    weight = np.arange(200.0) if weighted else None
    score = noisy_log_likelihood_scorer(classifier, X, answers, sample_weight=weight)
    proba, total, weights = classifier.predict_proba(X), 0.0, 0.0
    for row, annotator in np.argwhere(answers >= 0):
        column = classifier.annotator_transitions_[annotator][:, answers[row, annotator]]
        share = 1.0 if weight is None else weight[row]
        total += share * np.log(proba[row] @ column)
        weights += share
    assert score == pytest.approx(total / weights, abs=1e-5)


def test_annotators_are_routed(few):
    X, answers = few
    labels, ids = compact(answers)
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = copy.deepcopy(noisy_log_likelihood_scorer).set_score_request(annotators=True)
        found = cross_validate(
            small().set_fit_request(annotators=True),
            X,
            labels,
            params={"annotators": ids},
            scoring=scorer,
            cv=3,
            error_score="raise",
        )
    assert np.all(found["test_score"] < 0)


def test_constant_and_single_answers_of_annotators_do_no_harm(few):
    X, answers = few
    odd = np.column_stack([answers, np.zeros(200, dtype=int), np.full(200, -1), np.full(200, -1)])
    odd[0, 7] = 5
    classifier = small().fit(X, odd)
    assert classifier.annotator_transitions_.shape == (9, 10, 10)
    assert np.isfinite(classifier.annotator_quality_error_).all()
    assert classifier.annotator_quality_[6] < 0.3
    assert_allclose(classifier.annotator_transitions_[8], classifier.transition_matrix_, atol=0.2)


def test_ten_thousand_annotators_fit(few):
    X, answers = few
    labels, ids = compact(answers)
    ids = np.random.RandomState(0).randint(10_000, size=ids.shape)
    classifier = small().fit(X, labels % 3, annotators=ids)
    assert len(classifier.annotators_) == len(np.unique(ids))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"noise_model": "c"}, "noise_model='c' needs one observed label a row"),
        ({"transition_init": "cluster"}, "transition_init='cluster' needs one observed label"),
        ({"n_noise_targets": 3}, "`n_noise_targets` must be None with several answers"),
        ({"volume_penalty": 0.1}, "`volume_penalty` must be 0.0 with several answers"),
        ({"transition_init": np.ones((5, 10, 10)) / 10}, "one per annotator"),
        ({"answer_power": 0.0}, "'answer_power' parameter"),
        ({"annotator_prior": -1}, "'annotator_prior' parameter"),
    ],
)
def test_what_does_not_go_with_answers_is_refused(few, parameters, message):
    X, answers = few
    with pytest.raises(ValueError, match=message):
        small(**parameters).fit(X, answers)


def test_a_missing_label_that_is_a_class_leaves_that_class_out(few):
    X, answers = few
    with pytest.raises(ValueError, match="at least 2 classes"):
        small(missing_label=1).fit(X, np.where(answers % 2, 1, 0))


def test_a_fit_that_fails_leaves_the_annotators_as_they_were(few):
    X, answers = few
    classifier = small().fit(X, answers)
    with pytest.raises(ValueError, match="`annotators` must name"):
        classifier.fit(X, answers, annotators=np.zeros((3, 2)))
    assert classifier.annotators_.tolist() == [0, 1, 2, 3, 4, 5]


def test_parameters_are_cloned_and_no_warning_is_raised(few):
    X, answers = few
    classifier = clone(small(annotator_prior=2.0, answer_power=0.7, missing_label=-1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", category=FutureWarning)
        classifier.fit(X, answers)
    assert (classifier.annotator_prior_, classifier.answer_power_) == (2.0, 0.7)


def test_a_stream_that_has_not_started_comes_back_from_a_file(few, tmp_path):
    X, answers = few
    classifier = small().partial_fit(X[:100], answers[:100], classes=np.arange(10))
    save_model(classifier, tmp_path / "model.skops")
    loaded = load_model(tmp_path / "model.skops")
    for _ in range(10):  # a thousand rows are needed
        loaded.partial_fit(X[100:], answers[100:])
    assert loaded.noise_model_ == "s"
    n_answers = loaded.net_.network.noise.n_answers.sum()
    assert n_answers == (answers[:100] >= 0).sum() + 10 * (answers[100:] >= 0).sum()


def test_a_chunk_that_fails_leaves_the_counts_of_annotators_as_they_were(few):
    X, answers = few
    classifier = small().fit(X[:100], answers[:100]).partial_fit(X[100:150], answers[100:150])
    before = classifier.annotator_transitions_.copy()

    class Interrupt(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        classifier.set_params(callbacks=[Interrupt()], lr=0.002).partial_fit(X[150:], answers[150:])
    assert_array_equal(classifier.annotator_transitions_, before)
    other = pickle.loads(pickle.dumps(classifier.set_params(callbacks=None)))
    for one in (classifier, other):
        one.partial_fit(X[150:], answers[150:])
    assert_array_equal(other.annotator_transitions_, classifier.annotator_transitions_)


def test_matrices_that_do_not_fit_in_memory_are_refused():
    n_rows = 20_000
    many = np.arange(n_rows)[:, None] % 5000 * np.array([[1, 7]]) + np.array([[0, 1]])
    classes = np.column_stack([np.arange(n_rows), np.arange(n_rows) + 1]) % 3000
    with pytest.raises(MemoryError, match=r"matrices of \d+ annotators and 3000 classes"):
        small().fit(np.zeros((n_rows, 2)), classes, annotators=many)
