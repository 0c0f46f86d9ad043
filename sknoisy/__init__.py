"""Learn a classifier from noisily labelled data.

A torch network, trained by skorch, gets a noise adaptation layer on top that models how the
true label turned into the observed one (Goldberger and Ben-Reuven, ICLR 2017). The layer is
learned together with the network, without a single clean label, and taken off for prediction.
"""

from sknoisy._classifier import NoisyLabelClassifier
from sknoisy._files import load_model, save_model
from sknoisy._persistence import SKOPS_TRUSTED_TYPES
from sknoisy._version import __version__

__all__ = [
    "SKOPS_TRUSTED_TYPES",
    "NoisyLabelClassifier",
    "__version__",
    "load_model",
    "save_model",
]
