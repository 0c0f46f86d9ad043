"""Which labels are wrong, what the noise looks like, and how to correct the labels.

The estimator may be any classifier with ``predict_proba``; out-of-sample probabilities can be given
instead. A `NoisyLabelClassifier`, a pipeline that ends in one, or a search over either, uses its
own noise model. Rows of transition matrices are true classes, columns observed ones.
"""

from sknoisy._review.corrections import apply_corrections
from sknoisy._review.issues import LabelIssues
from sknoisy.inspection._answers import AnnotatorQualityDisplay
from sknoisy.inspection._displays import TrainingCurveDisplay, TransitionMatrixDisplay
from sknoisy.inspection._label_issues import find_label_issues, label_quality
from sknoisy.inspection._trusted import next_labels
from sknoisy.inspection._uncertainty import noise_test, transition_interval

__all__ = [
    "AnnotatorQualityDisplay",
    "LabelIssues",
    "TrainingCurveDisplay",
    "TransitionMatrixDisplay",
    "apply_corrections",
    "find_label_issues",
    "label_quality",
    "next_labels",
    "noise_test",
    "transition_interval",
]
