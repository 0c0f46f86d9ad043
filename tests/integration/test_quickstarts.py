"""The steps of the quick starts of scikit-learn and skorch, with our classifier in their place."""

import numpy as np
import pytest
from scipy.stats import randint
from sklearn.datasets import load_iris, make_classification
from sklearn.metrics import accuracy_score
from sklearn.model_selection import (
    GridSearchCV,
    RandomizedSearchCV,
    cross_validate,
    train_test_split,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sknoisy import NoisyLabelClassifier

# --- scikit-learn, "Getting started" ------------------------------------------------------------


def test_two_rows_in_lists_are_fitted_and_predicted():
    classifier = NoisyLabelClassifier(random_state=0)
    X = [[1, 2, 3], [11, 12, 13]]
    y = [0, 1]
    assert repr(classifier.fit(X, y)) == "NoisyLabelClassifier(random_state=0)"
    assert classifier.predict(X).tolist() == [0, 1]
    assert classifier.predict([[4, 5, 6], [14, 15, 16]]).tolist() == [0, 1]


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return train_test_split(X, y, random_state=0)


def test_a_pipeline_is_fitted_and_scored(iris):
    X_train, X_test, y_train, y_test = iris
    pipe = make_pipeline(StandardScaler(), NoisyLabelClassifier(random_state=0))
    pipe.fit(X_train, y_train)
    assert accuracy_score(pipe.predict(X_test), y_test) > 0.9


def test_an_estimator_is_cross_validated():
    X, y = make_classification(n_samples=1000, random_state=0)
    result = cross_validate(NoisyLabelClassifier(max_epochs=5), X, y)
    assert result["test_score"].shape == (5,)
    assert result["test_score"].mean() > 0.8


def test_parameters_are_searched_at_random(iris):
    X_train, X_test, y_train, y_test = iris
    search = RandomizedSearchCV(
        estimator=make_pipeline(StandardScaler(), NoisyLabelClassifier(random_state=0)),
        n_iter=3,
        param_distributions={
            "noisylabelclassifier__max_epochs": randint(60, 90),
            "noisylabelclassifier__batch_size": randint(20, 40),
        },
        cv=2,
        random_state=0,
    )
    search.fit(X_train, y_train)
    assert set(search.best_params_) == {
        "noisylabelclassifier__max_epochs",
        "noisylabelclassifier__batch_size",
    }
    assert search.score(X_test, y_test) > 0.85


# --- skorch, "Quickstart" -----------------------------------------------------------------------


class TwoLayers(nn.Module):
    """A whole classifier, as skorch takes it, with a softmax of two classes at its end."""

    def __init__(self, num_units=10, nonlin=nn.functional.relu):
        super().__init__()
        self.first = nn.Linear(20, num_units)
        self.dropout = nn.Dropout(0.5)
        self.second = nn.Linear(num_units, 10)
        self.output = nn.Linear(10, 2)
        self.nonlin = nonlin

    def forward(self, X, **kwargs):
        X = self.dropout(self.nonlin(self.first(X)))
        return self.output(self.second(X).relu()).softmax(dim=-1)


@pytest.fixture(scope="module")
def toy():
    X, y = make_classification(1000, 20, n_informative=10, random_state=0)
    return X.astype(np.float32), y.astype(np.int64)


@pytest.fixture
def net():
    # skorch's example has a rate of 0.1 and plain gradient descent. Adam, the default here, kills
    # the ten units with it for one seed in eight.
    return NoisyLabelClassifier(TwoLayers, max_epochs=10, lr=0.02, iterator_train__shuffle=True)


def test_a_module_is_trained_and_predicts(net, toy):
    X, y = toy
    net.set_params(random_state=0).fit(X, y)
    proba = net.predict_proba(X)
    assert proba.shape == (1000, 2)
    assert accuracy_score(y, proba.argmax(axis=1)) > 0.7


def test_a_module_goes_into_a_pipeline(net, toy):
    X, y = toy
    pipe = Pipeline([("scale", StandardScaler()), ("net", net)])
    pipe.fit(X, y)
    assert pipe.predict_proba(X).shape == (1000, 2)


def test_parameters_of_the_module_are_searched(net, toy):
    X, y = toy
    params = {"lr": [0.01, 0.02], "max_epochs": [10], "module__num_units": [10, 20]}
    search = GridSearchCV(net, params, refit=False, cv=2, scoring="accuracy")
    search.fit(X, y)
    assert search.best_score_ > 0.75
    assert set(search.best_params_) == set(params)
