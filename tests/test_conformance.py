"""scikit-learn accepts the classifier as one of its own, without an expected failure."""

import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from sknoisy import NoisyLabelClassifier


@parametrize_with_checks(
    [
        NoisyLabelClassifier(),
        # The stages of the default, and more; short ones, as training is not what is checked.
        NoisyLabelClassifier(noise_model=None, max_epochs=5, lr=0.01),
        NoisyLabelClassifier(noise_model="c", max_epochs=5, lr=0.01),
        NoisyLabelClassifier(method="em", max_epochs=5, lr=0.01, max_em_iter=5),
    ]
)
def test_scikit_learn_conformance(estimator, check):
    if check.keywords.get("readonly_memmap"):  # the same check again, of rows that are read only
        estimator = clone(estimator).set_params(max_epochs=5, lr=0.01)
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [
        NoisyLabelClassifier(),
        NoisyLabelClassifier(noise_model=None),
        NoisyLabelClassifier(noise_model="c"),
        NoisyLabelClassifier(method="em"),
    ]
)
def test_scikit_learn_conformance_of_long_trainings(estimator, check):
    check(estimator)
