"""noise_model="auto" and dropout="auto": what unseen labels choose."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import label_quality
from sknoisy.metrics import noise_corrected_accuracy_scorer
from sknoisy.noise import corrupt_labels, pair_transition, region_transition

K = 4


def make_rows(n_rows, seed=0):
    """Return four Gaussian classes, and a column that says only which half a row is in."""
    random = np.random.RandomState(seed)
    y = random.randint(K, size=n_rows)
    X = 3.0 * np.eye(K)[y] + random.normal(size=(n_rows, K))
    half = random.uniform(size=n_rows) < 0.5
    return np.column_stack([X, 3.0 * half]).astype(np.float32), y, half


def classifier(**params):
    defaults = {"noise_model": "auto", "hidden_layer_sizes": (24,), "random_state": 0}
    return NoisyLabelClassifier(**(defaults | {"max_epochs": 25, "early_stopping": True} | params))


@pytest.fixture(scope="module")
def region():
    """Rows of which one half is called by the name of the next class, 45 % of the time."""
    X, y, half = make_rows(4000)
    noise = region_transition(half, pair_transition(K, 0.45))
    return X, y, corrupt_labels(y, noise, random_state=0)


@pytest.fixture(scope="module")
def by_class():
    X, y, _ = make_rows(1500, seed=1)
    return X, y, corrupt_labels(y, pair_transition(K, 0.3), random_state=0)


@pytest.fixture(scope="module")
def fitted_c(region):
    X, _, observed = region
    return classifier(validation_fraction=0.3, max_epochs=15).fit(X, observed)


def test_noise_that_follows_the_features_gets_the_c_model(fitted_c, region):
    X = region[0]
    assert fitted_c.noise_model_ == "c"
    kinds = [row["noise_model"] for row in fitted_c.selection_]
    assert kinds[0] is None and "s" in kinds and "c" in kinds
    best = max(fitted_c.selection_, key=lambda row: row["log_likelihood"])
    assert best["noise_model"] == "c"
    transition = fitted_c.predict_transition(X[:100])
    assert np.ptp(transition, axis=0).max() > 0.01


def test_noise_of_the_classes_gets_a_noise_model_and_clean_labels_get_none(by_class):
    X, y, observed = by_class
    assert classifier().fit(X, observed).noise_model_ is not None
    assert classifier().fit(X, y).noise_model_ is None


def test_a_choice_of_no_noise_model_is_plain_training_bit_for_bit(by_class):
    X, y, _ = by_class
    plain = classifier(noise_model=None).fit(X, y).predict_proba(X)
    assert_array_equal(classifier().fit(X, y).predict_proba(X), plain)


@pytest.mark.parametrize("model", ["s", "c"])
def test_a_choice_of_a_model_is_a_fit_of_that_model_bit_for_bit(model, region, by_class):
    X, _, observed = region if model == "c" else by_class
    params = {"max_epochs": 10, "select_noise_model": False}
    auto = classifier(**params).fit(X, observed)
    if auto.noise_model_ != model:
        pytest.skip(f"{auto.noise_model_} was chosen")
    alone = classifier(noise_model=model, **params).fit(X, observed)
    assert_array_equal(auto.predict_proba(X), alone.predict_proba(X))


def test_without_a_comparison_there_is_always_a_noise_model(by_class):
    X, y, _ = by_class
    auto = classifier(select_noise_model=False, max_epochs=4).fit(X, y)
    assert auto.noise_model_ in ("s", "c")


def test_a_c_model_of_more_weights_than_rows_can_teach_is_left_out(region):
    X, _, observed = region
    few = classifier(max_epochs=3, hidden_layer_sizes=(4000,), select_noise_model=False)
    few.fit(X[:1000], observed[:1000])
    assert "c" not in [row["noise_model"] for row in few.selection_]


def test_what_needs_the_fitted_classifier_takes_the_c_model_that_was_chosen(fitted_c, region):
    X, y, observed = region
    quality = label_quality(fitted_c, X, observed)
    assert quality[observed == y].mean() > quality[observed != y].mean() + 0.1
    corrected = noise_corrected_accuracy_scorer(fitted_c, X, observed)
    assert abs(corrected - fitted_c.score(X, y)) < 0.1


def test_a_warm_start_goes_on_with_what_was_chosen(fitted_c, region):
    X, _, observed = region
    again = copy.deepcopy(fitted_c).set_params(max_epochs=2, warm_start=True)
    again.fit(X, observed)
    assert again.noise_model_ == "c"
    assert again.history_[-1, "stage"] == "c"


def test_a_stream_goes_on_with_what_was_chosen(fitted_c, region):
    X, _, observed = region
    stream = copy.deepcopy(fitted_c)
    stream.partial_fit(X[:100], observed[:100])
    assert stream.noise_model_ == "c"
    assert stream.history_[-1, "stage"] == "c"


def test_a_stream_from_its_beginning_is_that_of_the_s_model(by_class):
    X, _, observed = by_class
    params = {"transition_init": pair_transition(K, 0.3), "dropout": "auto"}
    auto = classifier(**params).partial_fit(X, observed, classes=range(K))
    alone = classifier(**params | {"noise_model": "s", "dropout": 0.0})
    alone.partial_fit(X, observed, classes=range(K))
    assert auto.noise_model_ == "s" and auto.dropout_ == 0.0
    assert_array_equal(auto.predict_proba(X), alone.predict_proba(X))


def test_several_answers_a_row_have_the_s_model(by_class):
    X, y, _ = by_class
    noise = pair_transition(K, 0.3)
    answers = np.column_stack([corrupt_labels(y, noise, random_state=s) for s in range(3)])
    several = classifier(dropout="auto", max_epochs=6, select_noise_model=False).fit(X, answers)
    assert several.noise_model_ == "s"
    assert several.dropout_ == 0.0


def test_checked_labels_take_part(region):
    X, y, observed = region
    trusted = np.arange(len(y)) % 50 == 0
    checked = classifier(dropout="auto", max_epochs=12)
    checked.fit(X, np.where(trusted, y, observed), trusted=trusted)
    assert "c" in [row["noise_model"] for row in checked.selection_]
    assert checked.dropout_ == 0.0


def test_only_checked_labels_are_plain_training(by_class):
    X, y, _ = by_class
    every = np.ones(len(y), dtype=bool)
    assert classifier(max_epochs=3).fit(X, y, trusted=every).noise_model_ is None


def test_em_is_refused():
    message = r"method='em' needs noise_model='s', got noise_model='auto'"
    with pytest.raises(ValueError, match=message):
        classifier(method="em").fit(np.eye(4), range(4))


# Dropout


@pytest.fixture(scope="module")
def few_rows_many_columns():
    """Rows of which a network learns wrong labels by heart."""
    X, y, _ = make_rows(600, seed=3)
    X = np.column_stack([X, np.random.RandomState(0).normal(size=(600, 60))])
    return X, y, corrupt_labels(y, pair_transition(K, 0.3), random_state=0)


@pytest.mark.parametrize("model", [None, "s"])
def test_the_dropout_that_explains_unseen_labels_best_is_kept(model, few_rows_many_columns):
    X, _, observed = few_rows_many_columns
    params = {"noise_model": model, "hidden_layer_sizes": (64,), "max_epochs": 40}
    either = classifier(dropout="auto", **params).fit(X, observed)
    rates = list(dict.fromkeys(row["dropout"] for row in either.selection_))
    assert rates in ([0.0, 0.25], [0.0, 0.25, 0.5])
    if model is None:
        likeliest = max(either.selection_, key=lambda row: row["log_likelihood"])
        assert either.dropout_ == likeliest["dropout"] > 0
    best = classifier(dropout=either.dropout_, **params).fit(X, observed)
    np.testing.assert_allclose(best.predict_proba(X), either.predict_proba(X), atol=1e-6)


def test_dropout_is_that_of_the_default_network_only(by_class):
    X, _, observed = by_class
    own = classifier(module=nn.Linear(K + 1, 8), dropout="auto", max_epochs=3).fit(X, observed)
    assert own.dropout_ is None
    assert "dropout" not in own.selection_[0]
    assert classifier(dropout=0.25, max_epochs=2).fit(X, observed).dropout_ == 0.25


def test_without_held_out_rows_nothing_is_dropped():
    X = make_rows(48)[0]
    y = np.arange(48) % K
    X[:, :K] = 3 * np.eye(K)[y]
    few = classifier(dropout="auto", early_stopping=False, max_epochs=20, lr=0.02)
    with pytest.warns(UserWarning, match="too few to estimate label noise"):
        few.fit(X, y)
    assert few.dropout_ == 0.0
    assert few.selection_ == []


def test_a_known_matrix_goes_with_either_dropout(by_class):
    X, _, observed = by_class
    known = classifier(
        noise_model="s",
        dropout="auto",
        transition_init=pair_transition(K, 0.3),
        learn_transition=False,
        max_epochs=6,
    ).fit(X, observed)
    assert [row["dropout"] for row in known.selection_][:2] == [0.0, 0.25]


def test_parameters_are_those_that_were_given():
    either = classifier(dropout="auto")
    again = clone(either)
    assert again.get_params()["noise_model"] == again.get_params()["dropout"] == "auto"


@pytest.mark.slow
@parametrize_with_checks(
    [NoisyLabelClassifier(noise_model="auto", dropout="auto", max_epochs=9, lr=0.02)]
)
def test_scikit_learn_takes_it_for_a_classifier(estimator, check):
    check(estimator)
