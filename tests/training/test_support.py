"""Noise that follows the features, which the s-model explains no better than none."""

import pytest
from sklearn.datasets import make_classification

from sknoisy import NoisyLabelClassifier
from sknoisy._stages import selection
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


@pytest.fixture(scope="module")
def by_class():
    """Easy rows, of which 30 % are called by the name of the next class."""
    X, y = gaussians(1000, 4, 2.5, seed=0)
    return X, y, corrupt_labels(y, pair_transition(4, 0.3), random_state=0)


def judged(monkeypatch, gain_of_em):
    """Let the iterations of EM explain a label by so much better than plain training."""
    gain = selection.Candidate.gain

    def told(self, other, among=None):
        stages = self.stage, other.stage
        if set(stages) == {"em", "baseline"}:
            return gain_of_em * (1 if stages[0] == "em" else -1), 0.01
        return gain(self, other, among)

    monkeypatch.setattr(selection.Candidate, "gain", told)


@pytest.mark.parametrize(("gain", "kept"), [(0.0, "s"), (-0.05, None)])
def test_direct_training_speaks_for_em_that_is_not_clearly_worse(by_class, monkeypatch, gain, kept):
    judged(monkeypatch, gain)
    X, _, observed = by_class
    model = NoisyLabelClassifier(method="em", early_stopping=True, validation_fraction=0.3)
    model.set_params(max_epochs=20, max_em_iter=20, tol=1e-2, random_state=0)
    model.set_params(hidden_layer_sizes=(1400,)).fit(X, observed)  # too many for the c-model
    assert model.noise_model_ == kept
    assert [row["noise_model"] for row in model.selection_].count("s") >= 2
