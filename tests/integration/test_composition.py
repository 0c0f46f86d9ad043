"""Inside the meta-estimators, the routing and the parallel backends of scikit-learn."""

import copy
import multiprocessing
import os
import threading

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.feature_selection import SelectFromModel
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, cross_validate, learning_curve
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sknoisy import NoisyLabelClassifier
from sknoisy._support.random import torch_seeded
from sknoisy.metrics import noisy_log_likelihood_scorer
from sknoisy.noise import corrupt_labels, uniform_transition


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    keep = y < 3
    X, y = (X[keep] / 16).astype("float32"), y[keep]
    return X, y, corrupt_labels(y, uniform_transition(3, 0.2), random_state=0)


def quick(**params):
    """Return a classifier that is trained on one part of the rows and keeps its noise layer."""
    common = {"max_epochs": 5, "lr": 1e-2, "early_stopping": True, "select_noise_model": False}
    return NoisyLabelClassifier(**common | {"random_state": 0} | params)


# --- Meta-estimators ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "compose",
    [
        lambda c: CalibratedClassifierCV(c, cv=2),
        lambda c: CalibratedClassifierCV(c, cv=2, ensemble=False, method="temperature"),
        lambda c: StackingClassifier([("ours", c), ("linear", LogisticRegression())], cv=2),
        lambda c: VotingClassifier([("ours", c), ("linear", LogisticRegression())], voting="soft"),
        lambda c: BaggingClassifier(c, n_estimators=2, max_samples=0.8, random_state=0),
        OneVsRestClassifier,
        lambda c: make_pipeline(StandardScaler(), c),
        lambda c: GridSearchCV(c, {"dropout": [0.0]}, cv=2),
    ],
    ids=["calibrated", "temperature", "stacking", "voting", "bagging", "rest", "pipeline", "grid"],
)
def test_meta_estimators_take_the_classifier(compose, digits):
    X, y, y_observed = digits
    estimator = compose(quick()).fit(X, y_observed)
    assert estimator.score(X, y) > 0.9
    assert_allclose(estimator.predict_proba(X).sum(axis=1), 1)


def test_a_frozen_classifier_is_not_fitted_again(digits):
    X, y, y_observed = digits
    fitted = quick().fit(X, y_observed)
    before = fitted.predict_proba(X)
    calibrated = CalibratedClassifierCV(FrozenEstimator(fitted)).fit(X, y)
    assert calibrated.score(X, y) > 0.9
    assert FrozenEstimator(fitted).fit(X[:50], y[:50]).estimator is fitted
    assert_array_equal(fitted.predict_proba(X), before)
    assert_allclose(
        noisy_log_likelihood_scorer(FrozenEstimator(fitted), X, y_observed),
        noisy_log_likelihood_scorer(fitted, X, y_observed),
    )


def test_inspection_and_learning_curves(digits):
    X, y, y_observed = digits
    importance = permutation_importance(quick().fit(X, y_observed), X, y, n_repeats=1)
    assert importance.importances_mean.shape == (64,)
    sizes, _, scores = learning_curve(quick(), X, y_observed, train_sizes=[0.5, 1.0], cv=2)
    assert scores.shape == (len(sizes), 2)
    selected = SelectFromModel(LogisticRegression()).fit(X, y)
    assert make_pipeline(selected, quick()).fit(X, y_observed).score(X, y) > 0.9


def test_pandas_output_of_a_pipeline_gives_the_names_of_features(digits):
    X, _, y_observed = digits
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), quick())
    pipeline.fit(X, y_observed)
    assert pipeline[-1].feature_names_in_[0] == "x0"


# --- Metadata routing ---------------------------------------------------------------------------


@pytest.mark.parametrize("scoring", [None, "unweighted", noisy_log_likelihood_scorer])
def test_weights_are_routed_through_a_pipeline_in_a_grid_search(scoring, digits):
    X, _, y_observed = digits
    weight = np.zeros(len(X))
    weight[::2] = 1.0
    flipped = np.where(weight > 0, y_observed, (y_observed + 1) % 3)
    with config_context(enable_metadata_routing=True):
        classifier = quick().set_fit_request(sample_weight=True)
        classifier.set_score_request(sample_weight=True)
        unweighted = scoring == "unweighted"
        if unweighted:
            scoring = make_scorer(accuracy_score).set_score_request(sample_weight=False)
        if scoring is noisy_log_likelihood_scorer:
            scoring = copy.deepcopy(scoring).set_score_request(sample_weight=True)
        pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), classifier)
        grid = {"noisylabelclassifier__noise_model": ["s", None]}
        search = GridSearchCV(pipeline, grid, scoring=scoring, cv=2)
        search.fit(X, flipped, sample_weight=weight)
    best = search.best_estimator_
    # Rows without a weight, all of them wrong, are not seen.
    scaled = make_pipeline(StandardScaler().fit(X), clone(best[-1]))
    expected = clone(best[-1]).fit(scaled[0].transform(X)[::2], y_observed[::2])
    assert_allclose(
        best.predict_proba(X), expected.predict_proba(scaled[0].transform(X)), atol=1e-6
    )
    if scoring is None:  # the rows with a weight count, in scores as well
        assert search.best_score_ > 0.6
    if unweighted:
        assert search.best_score_ < 0.6


def test_weights_that_nobody_asked_for_are_refused(digits):
    X, y, _ = digits
    with (
        config_context(enable_metadata_routing=True),
        pytest.raises(ValueError, match="sample_weight"),
    ):
        GridSearchCV(quick(), {"dropout": [0.0]}).fit(X, y, sample_weight=np.ones(len(X)))


# --- Parallel -----------------------------------------------------------------------------------


class Noisy(nn.Module):
    """Hidden layers that draw from torch's generator, at birth and in training."""

    def __init__(self, width=20):
        super().__init__()
        self.linear = nn.Linear(64, width)

    def forward(self, X):
        hidden = self.linear(X)
        return (hidden + 0.1 * torch.randn_like(hidden) if self.training else hidden).relu()


def search():
    classifier = quick(dropout=0.5, early_stopping="auto", select_noise_model=True)
    return GridSearchCV(classifier, {"noise_model": ["s", None]}, cv=2)


@pytest.fixture(scope="module")
def serial(digits):
    X, _, y_observed = digits
    return search().fit(X, y_observed)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_a_parallel_search_gives_the_serial_result(backend, digits, serial):
    X, _, y_observed = digits
    with joblib.parallel_config(backend, n_jobs=2):
        parallel = search().fit(X, y_observed)
    for name in ("mean_test_score", "split0_test_score", "split1_test_score"):
        assert_array_equal(parallel.cv_results_[name], serial.cv_results_[name])
    assert_array_equal(parallel.predict_proba(X), serial.predict_proba(X))


@pytest.mark.parametrize(
    "params",
    [{"dropout": 0.5, "max_epochs": 3}, {"module": Noisy, "max_epochs": 3}],
    ids=["MLP", "own"],
)
def test_fits_in_threads_do_not_disturb_each_other(params, digits):
    X, _, y_observed = digits
    expected = quick(**params).fit(X, y_observed).predict_proba(X)
    state = torch.get_rng_state()
    results = [None] * 4
    start = threading.Barrier(len(results))

    def fit(i):
        start.wait()
        results[i] = quick(**params).fit(X, y_observed).predict_proba(X)

    threads = [threading.Thread(target=fit, args=(i,)) for i in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for proba in results:
        assert_array_equal(proba, expected)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_process_that_is_forked_during_a_fit_can_fit():
    child = None
    with torch_seeded(0):
        inside = threading.Event()

        def fork():
            nonlocal child
            child = multiprocessing.get_context("fork").Process(target=_seed_once)
            child.start()
            inside.set()

        thread = threading.Thread(target=fork)
        thread.start()
        assert inside.wait(120)
        child.join(120)
        thread.join()
    assert child.exitcode == 0


def _seed_once():
    with torch_seeded(1):
        pass


def test_bagging_in_processes_gives_the_serial_result(digits):
    X, _, y_observed = digits
    bag = BaggingClassifier(quick(dropout=0.2), n_estimators=2, random_state=0)
    serial = clone(bag).fit(X, y_observed).predict_proba(X)
    parallel = bag.set_params(n_jobs=2).fit(X, y_observed).predict_proba(X)
    assert_array_equal(parallel, serial)


def test_own_modules_are_searched_in_processes(digits):
    X, _, y_observed = digits
    results = [
        cross_validate(quick(module=Noisy), X, y_observed, cv=2, n_jobs=n_jobs)["test_score"]
        for n_jobs in (None, 2)
    ]
    assert_array_equal(*results)


@pytest.mark.filterwarnings("ignore")
def test_dask_runs_a_grid_search_over_worker_processes(digits):
    distributed = pytest.importorskip("distributed")
    X, _, y_observed = digits
    grid = {"noise_model": ["s", None]}
    search = GridSearchCV(quick(), grid, cv=2, scoring=noisy_log_likelihood_scorer)
    serial = clone(search).fit(X, y_observed)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
        joblib.parallel_config("dask"),
    ):
        assert len(client.scheduler_info()["workers"]) == 2
        search.fit(X, y_observed)
    assert_allclose(
        search.cv_results_["mean_test_score"], serial.cv_results_["mean_test_score"], rtol=1e-6
    )
    assert search.best_params_ == serial.best_params_
