"""How a classifier shows itself, in a terminal and in a notebook."""

import html
import re

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_html_repr
from torch import nn

from sknoisy import NoisyLabelClassifier


def text_of(page):
    page = re.sub(r"<(style|script).*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))


@pytest.fixture(scope="module")
def fitted():
    X, y = load_iris(return_X_y=True)
    params = {"max_epochs": 2, "select_noise_model": False, "random_state": 0}
    return NoisyLabelClassifier(optimizer__weight_decay=1e-3, **params).fit(X, y)


def test_repr_names_what_was_changed(fitted):
    expected = "NoisyLabelClassifier(max_epochs=2, optimizer__weight_decay=0.001,\n"
    assert repr(fitted).startswith(expected)
    assert repr(NoisyLabelClassifier()) == "NoisyLabelClassifier()"
    assert "module__width=3" in repr(NoisyLabelClassifier(nn.Linear, module__width=3))


def test_the_page_shows_parameters_and_what_was_learned(fitted):
    text = text_of(estimator_html_repr(fitted))
    assert " Fitted " in text
    assert "max_epochs 2 random_state 0 optimizer__weight_decay 0.001" in text
    for name in (
        "class_prior_ ndarray[float64](3,)",
        "transition_matrix_ ndarray[float64](3, 3)",
        "initial_transition_matrix_ ndarray[float64](3, 3)",
        "classes_ ndarray[int64](3,) [0,1,2]",
        "noise_rate_ float",
        f"n_iter_ int {fitted.n_iter_}",
        "n_features_in_ int 4",
        "history_ History",
        "net_ SkorchNet",
    ):
        assert name in text
    assert "_stream" not in text


def test_the_page_of_a_pipeline_holds_that_of_the_classifier(fitted):
    pipeline = make_pipeline(StandardScaler(), fitted)
    assert "NoisyLabelClassifier" in text_of(estimator_html_repr(pipeline))
    assert fitted._repr_mimebundle_().keys() == {"text/plain", "text/html"}


def test_the_page_of_an_unfitted_classifier_says_so():
    text = text_of(estimator_html_repr(NoisyLabelClassifier(module=nn.Flatten())))
    assert " Not fitted " in text
    assert "module Flatten(" in text


def test_the_net_names_its_layers(fitted):
    for name in ("hidden", "head", "noise", "ClassTransition(n_classes=3, learnable=True)"):
        assert name in repr(fitted.net_)


def test_attributes_are_plain_values(fitted):
    assert isinstance(fitted.noise_rate_, float)
    assert isinstance(fitted.n_iter_, int)
    assert all(isinstance(row["train_loss"], float) for row in fitted.history_)
    np.testing.assert_allclose(fitted.transition_matrix_.sum(axis=1), 1)
