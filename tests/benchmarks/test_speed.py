"""Whole fits and predictions under pytest-benchmark, each group against its yardstick.

``python -m pip install -e ".[test,bench]" && python -m pytest -m slow tests/benchmarks``
"""

import pytest

pytest.importorskip("pytest_benchmark")

from contenders import (
    PROBLEMS,
    epochs_of,
    fit_loop,
    fit_sklearn,
    fit_skorch,
    make_classifier,
    make_problem,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]
OURS = {
    "None": {"noise_model": None},
    "s": {"noise_model": "s"},
    "c": {"noise_model": "c"},
    "em": {"method": "em"},
}
OTHERS = {"skorch": fit_skorch, "sklearn": fit_sklearn}


@pytest.fixture(params=PROBLEMS)
def problem(request):
    return make_problem(**PROBLEMS[request.param])


@pytest.mark.parametrize("name", OURS)
def test_fit(name, problem, benchmark):
    classifier = make_classifier(problem, **OURS[name])
    benchmark.group = f"{problem.X.shape}, {name}"
    benchmark.pedantic(
        classifier.fit, (problem.X, problem.y), rounds=3, warmup_rounds=1, iterations=1
    )
    assert classifier.score(problem.X_new, problem.y_new) > 0.7


@pytest.mark.parametrize("name", OURS)
def test_loop_of_as_many_passes(name, problem, benchmark):
    classifier = make_classifier(problem, **OURS[name]).fit(problem.X, problem.y)
    passes = epochs_of(classifier, problem)
    benchmark.group = f"{problem.X.shape}, {name}"
    benchmark.pedantic(fit_loop, (problem, passes), rounds=3, warmup_rounds=1, iterations=1)


@pytest.mark.parametrize("name", OTHERS)
def test_others(name, problem, benchmark):
    benchmark.group = f"{problem.X.shape}, None"
    benchmark.pedantic(OTHERS[name], (problem, problem.n_epochs), rounds=3, warmup_rounds=1)


def test_predict_proba(problem, benchmark):
    classifier = make_classifier(problem, max_epochs=1).fit(problem.X, problem.y)
    benchmark.group = f"{problem.X.shape}, predict_proba"
    proba = benchmark(classifier.predict_proba, problem.X)
    assert proba.shape == (len(problem.X), problem.n_classes)
