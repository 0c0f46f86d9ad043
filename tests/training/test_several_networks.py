"""The average of several networks, `n_networks`."""

import copy
import pickle

import numpy as np
import pytest
import skops.io
from numpy.testing import assert_array_equal
from scipy import sparse
from sklearn.datasets import make_blobs
from torch import nn

from sknoisy import NoisyLabelClassifier
from sknoisy._classifier.persistence import SKOPS_TRUSTED_TYPES
from sknoisy.noise import corrupt_labels, pair_transition

K = 3


@pytest.fixture(scope="module")
def data():
    X, y = make_blobs(600, 4, centers=K, cluster_std=2.5, random_state=0)
    return X, y, corrupt_labels(y, pair_transition(K, 0.3), random_state=0)


def classifier(**params):
    defaults = {"n_networks": 3, "hidden_layer_sizes": (8,), "max_epochs": 8, "random_state": 0}
    return NoisyLabelClassifier(**(defaults | {"select_noise_model": False} | params))


@pytest.fixture(scope="module", params=["s", "c", None], ids=str)
def several(request, data):
    X, _, observed = data
    return classifier(noise_model=request.param, early_stopping=True).fit(X, observed)


def test_units_of_all_networks_stand_side_by_side(several, data):
    X = data[0]
    assert several.net_.network.head.in_features == 24
    assert several.noise_model_ == several.noise_model
    proba = several.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_allclose(several.transition_matrix_.sum(axis=1), 1)
    noisy = np.einsum("ti,tij->tj", proba, several.predict_transition(X))
    np.testing.assert_allclose(several.predict_noisy_proba(X), noisy, atol=1e-6)


def test_the_first_network_is_that_of_a_fit_of_one(data):
    X, _, observed = data
    one = classifier(n_networks=1).fit(X, observed)
    three = classifier().fit(X, observed)
    weight = one.net_.network.hidden[1].weight
    assert_array_equal(three.net_.network.hidden[1].weight[:8].detach(), weight.detach())
    others = three.net_.network.hidden[1].weight[8:].detach().numpy()
    assert np.abs(others[:8] - others[8:]).max() > 0.01


def test_networks_differ_less_from_one_another_the_more_are_averaged(data):
    X, _, observed = data
    spread = []
    for n_networks in (1, 5):
        params = {"n_networks": n_networks, "noise_model": None, "early_stopping": False}
        proba = [
            classifier(random_state=seed, **params).fit(X, observed).predict_proba(X)
            for seed in range(3)
        ]
        spread.append(np.std(proba, axis=0).mean())
    assert spread[1] < spread[0]


def test_a_seed_repeats_the_average(several, data):
    X, _, observed = data
    again = copy.deepcopy(several).fit(X, observed)
    assert_array_equal(again.predict_proba(X), several.predict_proba(X))


def test_it_is_stored_and_goes_on_as_one_network(several, data):
    X, _, observed = data
    stored = pickle.loads(pickle.dumps(several))
    assert_array_equal(stored.predict_proba(X), several.predict_proba(X))
    stored.partial_fit(X[:64], observed[:64])
    assert stored.net_.network.head.in_features == 24
    stored.set_params(warm_start=True, max_epochs=2).fit(X, observed)
    assert stored.net_.network.head.in_features == 24


def test_it_is_kept_in_a_file_that_runs_no_code(several, data):
    loaded = skops.io.loads(skops.io.dumps(several), trusted=SKOPS_TRUSTED_TYPES)
    assert_array_equal(loaded.predict_proba(data[0]), several.predict_proba(data[0]))


def test_wide_sparse_rows_stay_sparse(data):
    X, _, observed = data
    wide = sparse.csr_array(np.hstack([np.maximum(X, 0), np.zeros((len(X), 3000))]))
    fitted = classifier(n_networks=2, max_epochs=2).fit(wide, observed)
    assert fitted.net_.network.takes_sparse
    assert fitted.net_.network.head.in_features == 16
    np.testing.assert_allclose(
        fitted.predict_proba(wide), fitted.predict_proba(wide.toarray()), atol=1e-6
    )


def test_several_answers_and_checked_labels_go_with_several_networks(data):
    X, y, observed = data
    answers = np.column_stack([observed, corrupt_labels(y, pair_transition(K, 0.2))])
    crowd = classifier(n_networks=2, max_epochs=3).fit(X, answers)
    assert crowd.net_.network.head.in_features == 16
    np.testing.assert_allclose(crowd.annotator_transitions_.sum(axis=2), 1)
    trusted = np.arange(len(y)) % 10 == 0
    checked = classifier(n_networks=2, max_epochs=3, early_stopping=True)
    checked.fit(X, np.where(trusted, y, observed), trusted=trusted)
    assert checked.net_.network.head.in_features == 16


def test_em_of_several_networks(data):
    X, _, observed = data
    fitted = classifier(n_networks=2, method="em", max_epochs=5).fit(X, observed)
    assert fitted.net_.network.head.in_features == 16


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"module": nn.Linear(4, 2)}, "n_networks=3 needs the default network.*VotingClassifier"),
        ({"noise_model": "c", "n_noise_targets": 2}, "needs n_noise_targets=None with noise_model"),
        ({"n_networks": 0}, "'n_networks' parameter"),
    ],
)
def test_what_cannot_be_averaged_is_refused(params, message, data):
    with pytest.raises(ValueError, match=message):
        classifier(**params).fit(data[0], data[2])
