"""Noise models that first explain labels no better than none: what else speaks for them."""

import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning

from sknoisy import NoisyLabelClassifier
from sknoisy._stages import selection
from sknoisy._stages.selection import NamedStart
from sknoisy._training import trainer
from sknoisy.noise import corrupt_labels, instance_transition, pair_transition

N_TRAIN = 2000


def gaussians(n_rows, n_classes, class_sep, seed):
    return make_classification(
        n_rows, n_informative=6, n_redundant=0, n_classes=n_classes, n_clusters_per_class=1,
        class_sep=class_sep, flip_y=0, random_state=seed,
    )  # fmt: skip


@pytest.fixture(scope="module")
def rows():
    """Six classes and their names for what they are not, where the features suggest it."""
    X, y = gaussians(4000, 6, 2.0, seed=3)
    noise = instance_transition(X, 6, 0.45, random_state=3)
    return X, y, corrupt_labels(y, noise, random_state=3)


@pytest.fixture
def strict(monkeypatch):
    """Let no s-model be clearly better than none by itself."""
    monkeypatch.setattr(selection, "ERRORS_OF_NOISE_MODELS", 3.0)


def fit(rows, **params):
    X, _, observed = rows
    model = NoisyLabelClassifier(random_state=3, **params)
    return model.fit(X[:N_TRAIN], observed[:N_TRAIN])


def score(model, rows):
    return model.score(rows[0][N_TRAIN:], rows[1][N_TRAIN:])


@pytest.mark.parametrize("method", ["direct", "em"])
@pytest.mark.usefixtures("strict")
def test_the_c_model_speaks_for_the_s_model(rows, method):
    model = fit(rows, method=method)
    assert model.noise_model_ == "s"
    assert [row["noise_model"] for row in model.selection_[:2]] == [None, "s"]
    assert model.selection_[-1]["noise_model"] == "c"
    assert score(model, rows) > score(fit(rows, noise_model=None), rows) + 0.05


@pytest.mark.usefixtures("strict")
def test_more_weights_than_rows_allow_are_not_asked(rows):
    model = fit(rows, hidden_layer_sizes=(1500,), max_epochs=5)
    assert all(row["noise_model"] != "c" for row in model.selection_)


@pytest.mark.usefixtures("strict")
def test_it_is_asked_for_the_s_model_only(rows, monkeypatch):
    monkeypatch.setattr(selection, "ERRORS_OF_NOISE_MODELS", 1e6)
    assert fit(rows, noise_model="auto", max_epochs=5).noise_model_ is None
    kept = fit(rows, select_noise_model=False, max_epochs=5)
    assert kept.noise_model_ == "s"
    assert all(row["noise_model"] != "c" for row in kept.selection_)


@pytest.mark.parametrize(("noise_model", "kept"), [("s", "s"), ("auto", "c")])
@pytest.mark.usefixtures("strict")
def test_a_start_that_was_left_out_is_asked_where_the_others_say_little(
    rows, monkeypatch, noise_model, kept
):
    timid, starts = 0.99 * np.eye(6) + 0.01 / 6, trainer.Trainer._starts
    monkeypatch.setattr(
        trainer.Trainer,
        "_starts",
        lambda self, plain: [NamedStart("timid", timid), *starts(self, plain)],
    )
    monkeypatch.setattr(
        trainer.Trainer,
        "_ahead",
        lambda self, plain, before, starts: [self._candidate("start", starts[0], before)],
    )
    model = fit(rows, noise_model=noise_model)
    assert model.noise_model_ == kept
    asked = [(row["noise_model"], row["start"]) for row in model.selection_]
    timid = [(None, None), ("s", "timid"), ("c", "timid")]
    n_timid = 2 if noise_model == "s" else 3
    assert [row for row in asked if None in row or "timid" in row] == timid[:n_timid]
    assert len(asked) > n_timid


@pytest.fixture
def in_doubt(monkeypatch):
    """Return a classifier, rows and labels; unless told otherwise nothing is clearly better."""
    X, y = gaussians(2200, 4, 2.5, seed=0)
    noise = pair_transition(4, 0.3)
    monkeypatch.setattr(trainer, "_MOST_WEIGHTS_PER_ROW", 0)  # the c-model is not asked
    monkeypatch.setattr(selection, "ERRORS_OF_NOISE_MODELS", 1e6)
    model = NoisyLabelClassifier(transition_init=noise, max_epochs=20, random_state=0)
    return model, X, corrupt_labels(y, noise, random_state=0)


@pytest.mark.parametrize(
    "params", [{"early_stopping": True}, {"early_stopping": False, "max_epochs": 10}]
)
def test_more_rows_are_held_out_where_a_part_leaves_it_open(in_doubt, params, monkeypatch):
    model, *rows = in_doubt
    model.set_params(**params)
    monkeypatch.setattr(trainer.Trainer, "_trained_longer", lambda self, plain: plain)

    def errors(n_parts, n_errors):
        """Return by how many standard errors the s-model is better, and whether it is kept."""
        monkeypatch.setattr(trainer, "_MOST_PARTS", n_parts)
        monkeypatch.setattr(selection, "ERRORS_OF_NOISE_MODELS", n_errors)
        model.fit(*rows)
        (row,) = (row for row in model.selection_ if row["noise_model"] == "s")
        return row["gain"] / row["standard_error"], model.noise_model_

    (one_part, none), (all_parts, neither) = errors(1, 1e6), errors(3, 1e6)
    assert none is neither is None
    assert all_parts > one_part > 0
    in_between = (one_part + all_parts) / 2
    assert errors(1, in_between)[1] is None
    assert errors(3, in_between)[1] == "s"


def test_an_interrupted_fit_does_not_end_with_a_training_for_comparison(in_doubt, monkeypatch):
    model, *rows = in_doubt
    before, truly = [], trainer.Trainer._train_in

    def interrupted(self, number, candidate):
        before.append(len(self.net.whole_history()))
        truly(self, number, candidate)
        if number == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer.Trainer, "_train_in", interrupted)
    with pytest.warns(ConvergenceWarning) as record:
        model.set_params(on_interrupt="keep").fit(*rows)
    n_before, n_epochs = before[-1], len(model.history_)
    (message,) = {str(one.message) for one in record if "are kept" in str(one.message)}
    assert int(re.search(r"weights of epoch (\d+)", message)[1]) <= n_before < n_epochs


@pytest.fixture
def hard():
    """Return rows of classes that overlap, and their right labels, and rows to test."""
    X, y = make_classification(
        1750, 20, n_informative=6, n_classes=10, class_sep=0.5, random_state=0
    )
    return X[:750], y[:750], X[750:], y[750:]


@pytest.mark.parametrize("max_epochs", [20, pytest.param(40, marks=pytest.mark.slow)])
def test_plain_training_that_was_cut_short_goes_on_to_be_compared_with(hard, max_epochs):
    X, y, X_test, y_test = hard
    params = {"max_epochs": max_epochs, "random_state": 0}
    plain = NoisyLabelClassifier(noise_model=None, **params).fit(X, y)
    model = NoisyLabelClassifier(**params).fit(X, y)
    assert model.score(X_test, y_test) >= plain.score(X_test, y_test) - 0.01
    if model.noise_model_ is None:
        assert_array_equal(model.predict_proba(X_test), plain.predict_proba(X_test))
    # Without it, a matrix of which two labels in three are wrong is far ahead of half a training.
    _, longer = (row for row in model.selection_ if row["noise_model"] is None)
    assert longer["gain"] > 2 * longer["standard_error"]


def test_plain_training_that_ended_by_itself_does_not_go_on(in_doubt):
    model, *rows = in_doubt
    model.set_params(max_epochs=200, lr=0.01).fit(*rows)
    assert [row["noise_model"] for row in model.selection_].count(None) == 1


def test_plain_training_does_not_go_on_where_nothing_else_can_be_kept(hard, monkeypatch, capsys):
    X, y, _, _ = hard
    monkeypatch.setattr(selection, "ERRORS_OF_NOISE_MODELS", 1e6)
    model = NoisyLabelClassifier(max_epochs=5, random_state=0, verbose=1).fit(X, y)
    assert [row["noise_model"] for row in model.selection_].count(None) == 2
    lines = capsys.readouterr().out.splitlines()
    (note,) = (line for line in lines if line.startswith("Plain training was not at its end"))
    assert lines[lines.index(note) + 1].split()[1] == "baseline"
    monkeypatch.setattr(trainer, "_MUCH_NOISE", 1.0)
    model.fit(X, y)
    assert [row["noise_model"] for row in model.selection_].count(None) == 1
    assert "Plain training was not at its end" not in capsys.readouterr().out


def test_longer_plain_training_that_is_no_better_is_not_compared_with(hard, monkeypatch):
    X, y, _, _ = hard
    compared = []

    def noted(self, plain, truly=trainer.Trainer._trained_longer):
        compared.append((truly(self, plain), plain))
        return compared[-1][0]

    monkeypatch.setattr(trainer.Trainer, "_trained_longer", noted)
    monkeypatch.setattr(trainer.Trainer, "_best_of", staticmethod(lambda c: c[0]))
    NoisyLabelClassifier(max_epochs=20, random_state=0).fit(X, y)
    ((longer, plain),) = compared
    assert longer is plain
