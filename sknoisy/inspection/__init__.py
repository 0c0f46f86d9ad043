"""Which labels are wrong, and what the noise looks like.

The estimator may be a `NoisyLabelClassifier`, a pipeline that ends in one, or a search over
either. Rows of transition matrices are true classes, columns observed ones.
"""

from sknoisy.inspection._displays import TrainingCurveDisplay, TransitionMatrixDisplay
from sknoisy.inspection._label_issues import find_label_issues, label_quality
from sknoisy.inspection._uncertainty import noise_test, transition_interval

__all__ = [
    "TrainingCurveDisplay",
    "TransitionMatrixDisplay",
    "find_label_issues",
    "label_quality",
    "noise_test",
    "transition_interval",
]
