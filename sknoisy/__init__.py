"""Learn a classifier from noisily labelled data.

A PyTorch network, trained by skorch, gets a noise adaptation layer on top that models how true
labels turned into observed ones (Goldberger and Ben-Reuven, ICLR 2017). The layer is learned
together with the network, without clean labels, and removed at prediction time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sknoisy._version import __version__

if TYPE_CHECKING:
    from sknoisy import exceptions, inspection, metrics, noise
    from sknoisy._classifier.classifier import NoisyLabelClassifier
    from sknoisy._classifier.persistence import SKOPS_TRUSTED_TYPES, load_model, save_model
    from sknoisy._data.indexable import IndexableDataset
    from sknoisy._distributed.predictions import split_predictions
    from sknoisy._meta.meta_classifier import NoisyLabelMetaClassifier

__all__ = [
    "SKOPS_TRUSTED_TYPES",
    "IndexableDataset",
    "NoisyLabelClassifier",
    "NoisyLabelMetaClassifier",
    "__version__",
    "exceptions",
    "inspection",
    "load_model",
    "metrics",
    "noise",
    "save_model",
    "split_predictions",
]

# Imported when they are asked for: noise, metrics and inspection need no torch.
_SUBMODULES = ("exceptions", "inspection", "metrics", "noise")
_HOME = {
    "IndexableDataset": "sknoisy._data.indexable",
    "NoisyLabelClassifier": "sknoisy._classifier.classifier",
    "NoisyLabelMetaClassifier": "sknoisy._meta.meta_classifier",
    "SKOPS_TRUSTED_TYPES": "sknoisy._classifier.persistence",
    "load_model": "sknoisy._classifier.persistence",
    "save_model": "sknoisy._classifier.persistence",
    "split_predictions": "sknoisy._distributed.predictions",
}


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"sknoisy.{name}")
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'sknoisy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
