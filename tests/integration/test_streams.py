"""Learning from a stream with partial_fit."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.callback import ScoringMonitor
from sklearn.datasets import make_classification
from skorch.callbacks import EpochScoring, LRScheduler

from sknoisy import NoisyLabelClassifier
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import corrupt_labels, pair_transition, uniform_transition

UNIFORM = uniform_transition(5, 0.5)


@pytest.fixture(scope="module")
def stream():
    X, y = make_classification(
        13_000, 20, n_informative=10, n_redundant=0, n_classes=5, n_clusters_per_class=1,
        class_sep=1.5, random_state=1,
    )  # fmt: skip
    return X.astype("float32"), y


def learn(classifier, X, y, chunk=500):
    for start in range(0, X.shape[0], chunk):
        rows = slice(start, start + chunk)
        classifier.partial_fit(X[rows], y[rows], classes=np.unique(y))
    return classifier


def few(stream, n=600):
    return stream[0][:n], stream[1][:n]


# --- What is learned ----------------------------------------------------------------------------


def test_a_known_matrix_is_used_from_the_first_call_on(stream):
    X, y = stream
    T = pair_transition(5, 0.4)
    y_observed = corrupt_labels(y, T, random_state=0)
    known = NoisyLabelClassifier(transition_init=T, random_state=0)
    plain = NoisyLabelClassifier(noise_model=None, random_state=0)
    for classifier in (known, plain):
        learn(classifier, X[:10_000], y_observed[:10_000])
    assert known.score(X[10_000:], y[10_000:]) > plain.score(X[10_000:], y[10_000:]) + 0.15
    assert set(known.history_[:, "stage"]) == {"s"}
    assert_allclose(known.initial_transition_matrix_, T, atol=1e-4)
    assert transition_matrix_error(known.transition_matrix_, T) < 0.03
    assert_array_equal(plain.transition_matrix_, np.eye(5))


@pytest.mark.parametrize("noise_model", ["s", "c"])
def test_the_noise_layer_starts_when_the_baseline_has_settled(noise_model, stream):
    X, y = stream
    y_observed = corrupt_labels(y, UNIFORM, random_state=0)
    classifier = NoisyLabelClassifier(
        noise_model=noise_model, random_state=0, lr=5e-3, n_iter_no_change=2
    )
    learn(classifier, X, y_observed)
    stages = classifier.history_[:, "stage"]
    assert set(stages) == {"baseline", noise_model}
    assert stages == sorted(stages)  # once it has started it stays
    assert transition_matrix_error(classifier.transition_matrix_, UNIFORM) < 0.12
    assert classifier.noise_rate_ == pytest.approx(0.5, abs=0.1)
    assert classifier.score(X, y) > 0.9


def test_the_noise_layer_waits_for_as_many_blocks_as_it_is_told(stream):
    X, y = stream
    y_observed = corrupt_labels(y, UNIFORM, random_state=0)
    waited = []
    for patience in (1, 2, 4):
        classifier = NoisyLabelClassifier(
            transition_init="cluster", random_state=0, lr=0.02, n_iter_no_change=patience
        )
        learn(classifier, X, y_observed, chunk=1000)
        waited.append(classifier.history_[:, "stage"].count("baseline"))
    assert waited[0] < waited[1] < waited[2] < len(X) / 1000


def test_after_fit_both_go_on_together(stream):
    X, y = stream
    y_observed = corrupt_labels(y, UNIFORM, random_state=0)
    classifier = NoisyLabelClassifier(random_state=0).fit(X[:2000], y_observed[:2000])
    before = classifier.score(X[10_000:], y[10_000:])
    n_iter = classifier.n_iter_
    for start in range(2000, 10_000, 1000):
        rows = slice(start, start + 1000)
        classifier.partial_fit(X[rows], y_observed[rows])
    assert classifier.score(X[10_000:], y[10_000:]) > before
    assert classifier.n_iter_ == n_iter + 8
    assert set(classifier.history_[n_iter:, "stage"]) == {"s"}


@pytest.mark.parametrize("init", ["auto", "cluster", "confusion"])
def test_every_start_can_be_asked_for(init, stream):
    X, y = stream
    classifier = NoisyLabelClassifier(
        transition_init=init,
        random_state=0,
        n_iter_no_change=1,
        lr=1e-2,
        select_noise_model=False,
    )
    learn(classifier, X, y)
    assert classifier.history_[-1, "stage"] == "s"
    assert transition_matrix_error(classifier.transition_matrix_, np.eye(5)) < 0.3


def test_the_noise_is_unknown_until_it_was_estimated(stream):
    X, y = stream
    y_observed = corrupt_labels(y, UNIFORM, random_state=0)
    classifier = NoisyLabelClassifier(random_state=0, lr=5e-3, n_iter_no_change=2)
    seen = []
    for start in range(0, len(X), 500):
        rows = slice(start, start + 500)
        classifier.partial_fit(X[rows], y_observed[rows], classes=range(5))
        seen.append((classifier.noise_model_, classifier.noise_rate_))
        if classifier.noise_model_ is None:
            assert_array_equal(classifier.transition_matrix_, np.eye(5))
    models = [model for model, _ in seen]
    assert models[0] is None
    assert models[-1] == "s"
    assert all(np.isnan(rate) == (model is None) for model, rate in seen)
    assert seen[-1][1] == pytest.approx(0.5, abs=0.1)


def test_plain_training_has_no_noise_and_says_so(stream):
    X, y = few(stream)
    classifier = learn(NoisyLabelClassifier(noise_model=None, random_state=0), X, y, 200)
    assert classifier.noise_rate_ == 0.0
    assert classifier.noise_model_ is None
    assert classifier.selection_ == []


def test_a_stream_without_noise_stays_without_a_noise_model(stream):
    X, y = stream
    params = {"random_state": 0, "lr": 5e-3, "n_iter_no_change": 1}
    classifier = learn(NoisyLabelClassifier(**params), X, y)
    plain = learn(NoisyLabelClassifier(noise_model=None, **params), X, y)
    assert classifier.noise_model_ is None or classifier.noise_rate_ < 0.05
    assert classifier.score(X, y) > plain.score(X, y) - 0.02


def test_a_wrong_start_is_taken_back_and_the_baseline_with_it(stream, monkeypatch):
    X, y = stream
    wrong = np.roll(uniform_transition(5, 0.3), 1, axis=1)
    tried = []

    def rigged(*args, **kwargs):
        tried.append(True)
        return wrong if len(tried) == 1 else None

    monkeypatch.setattr("sknoisy._training.stream.start_from_block", rigged)
    params = {"random_state": 0, "lr": 5e-3, "n_iter_no_change": 1}
    classifier = NoisyLabelClassifier(**params)
    models = []
    for start in range(0, len(X), 500):
        rows = slice(start, start + 500)
        classifier.partial_fit(X[rows], y[rows], classes=range(5))
        models.append(classifier.noise_model_)
    assert "s" in models
    first, last = models.index("s"), len(models) - 1 - models[::-1].index("s")
    assert last - first < 6  # put back within a few blocks
    assert models[-1] is None
    assert np.isnan(classifier.noise_rate_)
    assert_array_equal(classifier.transition_matrix_, np.eye(5))
    plain = learn(NoisyLabelClassifier(noise_model=None, **params), X, y)
    assert classifier.score(X, y) > plain.score(X, y) - 0.03


def test_a_start_that_is_asked_for_is_kept(stream, monkeypatch):
    X, y = stream
    wrong = uniform_transition(5, 0.5)
    monkeypatch.setattr("sknoisy._training.stream.start_from_block", lambda *a, **k: wrong)
    params = {"random_state": 0, "lr": 5e-3, "n_iter_no_change": 1}
    classifier = learn(NoisyLabelClassifier(select_noise_model=False, **params), X, y)
    assert classifier.noise_model_ == "s"


def test_the_baseline_gets_as_many_blocks_of_patience_as_it_is_given(monkeypatch):
    X, y = np.zeros((13_000, 2)), np.arange(13_000) % 5  # all blocks are equally likely
    starts = {}
    for n_iter_no_change in (1, 3, 6):
        calls = []

        def record(log_proba, target, *args, calls=calls, **kwargs):
            calls.append(len(target))
            return None

        monkeypatch.setattr("sknoisy._training.stream.start_from_block", record)
        params = {"lr": 1e-12, "random_state": 0, "n_iter_no_change": n_iter_no_change}
        classifier = NoisyLabelClassifier(**params)
        for start in range(0, len(X), 500):
            rows = slice(start, start + 500)
            classifier.partial_fit(X[rows], y[rows], classes=range(5))
            if calls:
                break
        starts[n_iter_no_change] = start + 500
        assert calls == [1000]
    # The first chunk is not predicted before it is learned; then come blocks of 1000 rows, of which
    # the first one has none to be better than.
    assert starts == {1: 2500, 3: 4500, 6: 7500}


# --- What a call does ---------------------------------------------------------------------------


def test_a_call_is_one_pass_over_its_rows(stream):
    X, y = few(stream)
    classifier = NoisyLabelClassifier(batch_size=100, random_state=0)
    learn(classifier, X, y, chunk=200)
    assert classifier.n_iter_ == 3
    assert classifier.history_[:, "train_batch_count"] == [2, 2, 2]
    assert classifier.history_[:, "epoch"] == [1, 2, 3]


def test_the_optimiser_goes_on_from_call_to_call(stream):
    """Two calls are two epochs of one optimiser, not twice the first step."""
    X, y = few(stream, 200)
    params = {"noise_model": None, "batch_size": 200, "random_state": 0}
    fitted = NoisyLabelClassifier(max_epochs=2, early_stopping=False, **params).fit(X, y)
    streamed = NoisyLabelClassifier(**params)
    streamed.partial_fit(X, y, classes=range(5)).partial_fit(X, y)
    steps = {int(s["step"]) for s in streamed.net_.optimizer_.state.values()}
    assert steps == {2}
    losses = [c.history_[-2:, "train_loss"] for c in (fitted, streamed)]
    assert losses[1][1] < losses[1][0]
    assert len(losses[0]) == len(losses[1]) == 2


def test_another_learning_rate_counts_from_the_next_call_on(stream):
    X, y = few(stream)
    classifier = NoisyLabelClassifier(random_state=0).partial_fit(X, y, classes=range(5))
    before = classifier.predict_proba(X)
    classifier.set_params(lr=1e-12).partial_fit(X, y)
    assert_allclose(classifier.predict_proba(X), before, atol=1e-6)
    assert classifier.n_iter_ == 2


def test_the_result_depends_on_the_seed_only(stream):
    X, y = few(stream)
    first = learn(NoisyLabelClassifier(random_state=0, dropout=0.2), X, y, 200)
    again = learn(NoisyLabelClassifier(random_state=0, dropout=0.2), X, y, 200)
    other = learn(NoisyLabelClassifier(random_state=1, dropout=0.2), X, y, 200)
    assert_array_equal(first.predict_proba(X), again.predict_proba(X))
    assert not np.array_equal(first.predict_proba(X), other.predict_proba(X))


def test_classes_may_come_late_or_never(stream):
    X, y = few(stream)
    names = np.array(["ant", "bee", "cow", "dog", "elk", "fox"])
    order = np.argsort(y, kind="stable")
    classifier = NoisyLabelClassifier(random_state=0)
    for rows in np.array_split(order, 10):
        classifier.partial_fit(X[rows], names[y[rows]], classes=names)
    assert_array_equal(classifier.classes_, names)
    assert classifier.predict_proba(X).shape == (len(X), 6)


def test_a_single_row_is_a_chunk(stream):
    X, y = few(stream, 30)
    classifier = learn(NoisyLabelClassifier(transition_init=np.eye(5), random_state=0), X, y, 1)
    assert classifier.n_iter_ == 30
    assert np.isfinite(classifier.predict_proba(X)).all()


@pytest.mark.parametrize("first", [1, 3])
@pytest.mark.parametrize("factor", [1.0, 1e4])
def test_a_few_first_rows_do_not_spoil_the_scale_of_the_rest(stream, first, factor):
    # A column that is constant in the first rows has no scale yet.
    X, y = few(stream, 4000)
    params = {"noise_model": None, "random_state": 0, "lr": 5e-3, "batch_size": 100}
    classifier = NoisyLabelClassifier(**params)
    classifier.partial_fit(factor * X[:first], y[:first], classes=range(5))
    learn(classifier, factor * X[first:], y[first:])
    usual = learn(NoisyLabelClassifier(**params), X, y)
    found = classifier.score(factor * X, y)
    assert found > usual.score(X, y) - 0.05


def test_mean_and_scale_of_the_columns_are_those_of_all_rows_so_far(stream):
    X, y = few(stream)
    X = np.linspace(1.0, 500.0, len(X), dtype="float32")[:, None] * X
    classifier = NoisyLabelClassifier(random_state=0)
    for end in range(200, 601, 200):
        rows = slice(end - 200, end)
        classifier.partial_fit(X[rows], y[rows], classes=range(5))
        layer = classifier.net_.network.hidden.standardization
        assert_allclose(layer.mean, X[:end].mean(axis=0), rtol=1e-3, atol=1e-2)
        expected = np.maximum(X[:end].std(axis=0), np.ptp(X[:end], axis=0) / 5)
        assert_allclose(layer.scale, expected, rtol=1e-3)


def test_after_fit_the_columns_keep_their_mean_and_scale(stream):
    X, y = few(stream)
    classifier = NoisyLabelClassifier(random_state=0, max_epochs=1).fit(X, y)
    before = classifier.net_.network.hidden.standardization.scale.clone()
    classifier.partial_fit(3 * X, y)
    assert_array_equal(classifier.net_.network.hidden.standardization.scale, before)


def test_a_network_without_hidden_layers_learns_from_a_stream(stream):
    X, y = stream[0][:4000], stream[1][:4000]
    classifier = NoisyLabelClassifier(hidden_layer_sizes=(), noise_model=None, lr=0.02)
    assert learn(classifier.set_params(random_state=0), 100 * X, y).score(100 * X, y) > 0.6


def test_the_mean_clean_probability_is_of_all_rows(stream):
    X, y = few(stream)
    classifier = NoisyLabelClassifier(random_state=0, lr=1e-9)
    classifier.partial_fit(X[:100], y[:100], classes=range(5)).partial_fit(X[100:], y[100:])
    assert_allclose(classifier.class_prior_, classifier.predict_proba(X).mean(axis=0), atol=1e-5)


def test_rows_without_weight_are_not_seen(stream):
    X, y = few(stream)
    weight = (np.arange(len(X)) < 300).astype(float)
    weighted = NoisyLabelClassifier(random_state=0)
    weighted.partial_fit(X, y, classes=range(5), sample_weight=weight)
    expected = NoisyLabelClassifier(random_state=0).partial_fit(X[:300], y[:300], range(5))
    assert_allclose(weighted.predict_proba(X), expected.predict_proba(X), atol=1e-6)


def test_sparse_chunks_give_the_dense_result(stream):
    X, y = few(stream)
    dense = learn(NoisyLabelClassifier(random_state=0), X, y, 200)
    csr = learn(NoisyLabelClassifier(random_state=0), sparse.csr_array(X), y, 200)
    assert_allclose(csr.predict_proba(X), dense.predict_proba(X), atol=1e-6)


def test_chunks_of_another_precision_are_taken(stream):
    X, y = few(stream)
    classifier = NoisyLabelClassifier(random_state=0)
    classifier.partial_fit(X, y, classes=range(5)).partial_fit(X.astype("float64"), y)
    assert str(classifier.net_.dtype) == "torch.float32"


def test_a_stream_goes_on_from_a_file(stream):
    X, y = few(stream)
    classifier = learn(NoisyLabelClassifier(random_state=0), X, y, 200)
    loaded = pickle.loads(pickle.dumps(classifier))
    assert_array_equal(loaded.predict_proba(X), classifier.predict_proba(X))
    loaded.partial_fit(X, y)
    assert loaded.n_iter_ == 4


def test_fit_begins_anew_after_a_stream(stream):
    X, y = few(stream)
    classifier = learn(NoisyLabelClassifier(random_state=0, max_epochs=2), X, y, 200)
    expected = clone(classifier).fit(X, y).predict_proba(X)
    assert_array_equal(classifier.fit(X[:, :], y).predict_proba(X), expected)


def test_callbacks_of_both_kinds_hear_of_every_call(stream):
    X, y = few(stream)
    callbacks = [
        EpochScoring("accuracy", on_train=True, name="acc", lower_is_better=False),
        LRScheduler("StepLR", step_size=1, gamma=0.5, event_name="event_lr"),
    ]
    monitor = ScoringMonitor(scoring="accuracy")
    classifier = NoisyLabelClassifier(random_state=0, callbacks=callbacks).set_callbacks(monitor)
    learn(classifier, X, y, 200)
    assert_allclose(classifier.history_[:, "event_lr"], [1e-3, 1e-3, 1e-3])
    assert len(classifier.history_[:, "acc"]) == 3
    assert len(monitor.get_logs(select="all")) == 3


# --- What is refused ----------------------------------------------------------------------------


def test_the_first_call_needs_the_classes(stream):
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        NoisyLabelClassifier().partial_fit(*few(stream))


def test_new_classes_are_refused_later(stream):
    X, y = few(stream)
    classifier = NoisyLabelClassifier().partial_fit(X, y, classes=range(5))
    with pytest.raises(ValueError, match=r"`classes` must be the same in every call.*\[0, 1, 2"):
        classifier.partial_fit(X, y, classes=range(6))
    with pytest.raises(ValueError, match=r"`y` must hold labels seen in fit, .*got \[5"):
        classifier.partial_fit(X, y + 1)
    assert classifier.n_iter_ == 1


def test_labels_outside_the_classes_are_refused_and_nothing_is_kept(stream):
    X, y = few(stream)
    classifier = NoisyLabelClassifier()
    with pytest.raises(ValueError, match=r"got \[4\]"):
        classifier.partial_fit(X, y, classes=range(4))
    with pytest.raises(ValueError, match="classes must be passed"):
        classifier.partial_fit(X, y)
    with pytest.raises(ValueError, match="at least 2 classes"):
        classifier.partial_fit(X, np.zeros(len(X), int), classes=[0])


def test_other_columns_are_refused_later(stream):
    X, y = few(stream)
    classifier = NoisyLabelClassifier().partial_fit(X, y, classes=range(5))
    with pytest.raises(
        ValueError, match="X has 19 features, but NoisyLabelClassifier is expecting"
    ):
        classifier.partial_fit(X[:, 1:], y)


def test_what_needs_all_rows_at_once_is_refused(stream):
    X, y = few(stream)
    assert not hasattr(NoisyLabelClassifier(method="em"), "partial_fit")
    with pytest.raises(AttributeError, match="partial_fit"):
        NoisyLabelClassifier(method="em").partial_fit(X, y, classes=range(5))
    with pytest.raises(ValueError, match="class_weight='balanced' needs all labels"):
        NoisyLabelClassifier(class_weight="balanced").partial_fit(X, y, classes=range(5))
