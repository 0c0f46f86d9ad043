"""scikit-learn accepts the classifier as one of its own, without an expected failure."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from sknoisy import NoisyLabelClassifier


@parametrize_with_checks(
    [
        NoisyLabelClassifier(),
        NoisyLabelClassifier(noise_model=None),
        NoisyLabelClassifier(noise_model="c"),
        NoisyLabelClassifier(method="em"),
    ]
)
def test_scikit_learn_conformance(estimator, check):
    check(estimator)
