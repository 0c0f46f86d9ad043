"""Models in files that run no code when they are loaded and are never half written."""

from __future__ import annotations

import os
import shutil
import stat
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning

from sknoisy._classifier.archives import ARCHIVE_BEGINS, unpacked
from sknoisy._classifier.consistency import check_consistent
from sknoisy._net.net_state import storable
from sknoisy._version import __version__

_VERSION = "_sknoisy_version"

# Layers of torch that compute on tensors and hold nothing but numbers, names and one another.
_LAYERS_OF_TORCH = {
    "activation": (
        "CELU ELU GELU GLU Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid LogSoftmax Mish "
        "MultiheadAttention PReLU ReLU ReLU6 SELU SiLU Sigmoid Softmax Softplus Softsign Tanh"
    ),
    "batchnorm": "BatchNorm1d BatchNorm2d BatchNorm3d",
    "container": "ModuleDict ModuleList ParameterDict ParameterList Sequential",
    "conv": "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d",
    "dropout": "AlphaDropout Dropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout",
    "flatten": "Flatten Unflatten",
    "instancenorm": "InstanceNorm1d InstanceNorm2d InstanceNorm3d",
    "linear": "Bilinear Identity Linear NonDynamicallyQuantizableLinear",
    "loss": "NLLLoss",
    "normalization": "GroupNorm LayerNorm LocalResponseNorm RMSNorm",
    "padding": "ConstantPad1d ConstantPad2d ReflectionPad1d ReflectionPad2d ZeroPad1d ZeroPad2d",
    "pooling": (
        "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveMaxPool1d AdaptiveMaxPool2d AvgPool1d "
        "AvgPool2d AvgPool3d MaxPool1d MaxPool2d MaxPool3d"
    ),
    "rnn": "GRU GRUCell LSTM LSTMCell RNN RNNCell",
    "sparse": "Embedding EmbeddingBag",
    "upsampling": "Upsample UpsamplingBilinear2d UpsamplingNearest2d",
}

# What `skops.io` is told to trust: this package, the layers above, and some optimisers.
SKOPS_TRUSTED_TYPES = [
    "sknoisy._data.batches.ArrayBatches",
    "sknoisy._data.batches.ArrayDataset",
    "sknoisy._classifier.classifier.NoisyLabelClassifier",
    "sknoisy._data.columns.ColumnStatistics",
    "sknoisy._model.network.MLP",
    "sknoisy._model.network.NoisyLabelModule",
    "sknoisy._model.network.Standardization",
    "sknoisy._model.sparse_input.SparseLinear",
    "sknoisy._net.net.SkorchNet",
    "sknoisy._net.net_state.StoredModule",
    "sknoisy._net.net_state.StoredTensor",
    "sknoisy._net.net_state.StoredType",
    "sknoisy._training.annotators.AnnotatorStream",
    "sknoisy._training.stream.Stream",
    "sknoisy._crowd.answers.Answers",
    "sknoisy._model.annotator_noise.AnnotatorTransition",
    "sknoisy._model.noise_layers.ClassTransition",
    "sknoisy._model.feature_noise.FeatureTransition",
    "sknoisy._model.feature_noise.SparseFeatureTransition",
    *(
        f"torch.nn.modules.{part}.{name}"
        for part, names in _LAYERS_OF_TORCH.items()
        for name in names.split()
    ),
    "torch.device",
    "torch.optim.adam.Adam",
    "torch.optim.adamw.AdamW",
    "torch.optim.rmsprop.RMSprop",
    "torch.optim.sgd.SGD",
]


class VersionedMixin:
    """Let an estimator that is loaded say when another version of the package saved it."""

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        # The net holds the history as well, and keeps it in less space.
        state = {name: value for name, value in state.items() if name != "history_"}
        parameters = self.get_params(deep=False)  # type: ignore[attr-defined]
        state |= {name: storable(value) for name, value in parameters.items() if name in state}
        return state | {_VERSION: __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        version = state.pop(_VERSION, "unknown")
        if version != __version__:
            warnings.warn(
                InconsistentVersionWarning(
                    estimator_name=type(self).__name__,
                    current_sklearn_version=f"{__version__} of sknoisy",
                    original_sklearn_version=f"{version} of sknoisy",
                ),
                stacklevel=2,
            )
        check_consistent(state)
        super().__setstate__(state)  # type: ignore[misc]
        if "net_" in state:
            self.history_ = state["net_"].history


def save_model(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted classifier, or a pipeline with one, to a file that is safe to load.

    The file is in the format of `skops.io`, which holds arrays and names of types and no pickle. It
    is written beside `path` and moved there when it is complete. If the disk is full or the process
    is killed, an existing file of that name stays as it was.

    Parameters
    ----------
    model : estimator
        A `NoisyLabelClassifier`, or a pipeline with one in it.
    path : str or path-like
        The file, by convention ``*.skops``. Its directory must exist.

    Raises
    ------
    ImportError
        If skops is not installed.
    OSError
        If the file cannot be written.
    TypeError
        If the model is not a classifier of this package and does not contain one.
    ValueError
        If it contains something that could not be loaded again, such as a lambda.

    See Also
    --------
    load_model : Load the model again.

    Notes
    -----
    The content is loaded once before anything is written, to make sure that it can be. A path that
    is a pipe or a device, such as ``/dev/stdout``, is written to.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn.datasets import load_iris
    >>> from sknoisy import NoisyLabelClassifier, load_model, save_model
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = NoisyLabelClassifier(lr=0.01, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(classifier, Path(folder) / "model.skops")
    ...     loaded = load_model(Path(folder) / "model.skops")
    >>> bool((loaded.predict_proba(X) == classifier.predict_proba(X)).all())
    True
    """
    io = _skops()
    if not _holds_classifier(model):
        raise TypeError(
            "`model` must be a NoisyLabelClassifier or an estimator that holds one; got "
            f"{type(model).__name__}."
        )
    _write(_content(io, model), path)


def load_model(path: str | os.PathLike[str], *, trusted: Iterable[str] = ()) -> Any:
    """Load a model that `save_model` or `skops.io` wrote, without running code from the file.

    Parameters
    ----------
    path : str or path-like
    trusted : iterable of str, default=()
        Types to trust besides those of scikit-learn, numpy and `SKOPS_TRUSTED_TYPES`, such as
        your own module: ``"my_package.MyModule"``. They are imported and objects
        of them are created, so name only types that you know.

    Returns
    -------
    estimator

    Raises
    ------
    ImportError
        If skops is not installed.
    OSError
        If the file cannot be read.
    ValueError
        If the file is truncated or was tampered with, is not a model, or contains a type that is
        not trusted.

    See Also
    --------
    save_model : Write a file that this function loads.
    """
    io = _skops()
    with open(path, "rb") as file:
        content = file.read(len(ARCHIVE_BEGINS))
        content += file.read() if content == ARCHIVE_BEGINS else b""  # a device may have no end
    known = [*SKOPS_TRUSTED_TYPES, *trusted]
    try:
        checked = unpacked(content, frozenset(SKOPS_TRUSTED_TYPES))
        untrusted = set(io.get_untrusted_types(data=checked)).difference(known)
        model = None if untrusted else io.loads(checked, trusted=known)
    except (Warning, MemoryError):
        raise
    except Exception as error:
        raise ValueError(
            f"`path` must be a whole file of `save_model`; {str(path)!r} is truncated, tampered "
            f"with or something else ({type(error).__name__}: {error})."
        ) from error
    if untrusted:
        raise ValueError(
            f"`path` must hold trusted types only; {str(path)!r} holds "
            f"{', '.join(sorted(untrusted))}. Pass those that you know as `trusted`."
        )
    if not _holds_classifier(model):
        raise ValueError(
            "`path` must be a file of `save_model`, of a NoisyLabelClassifier or of an estimator "
            f"that holds one; {str(path)!r} holds {type(model).__name__}."
        )
    return model


def _content(io: ModuleType, model: Any) -> bytes:
    """Return what the file of a model holds, once it is known that it can be loaded."""
    try:
        content = bytes(io.dumps(model))
        io.loads(content, trusted=io.get_untrusted_types(data=content))
    except (Warning, MemoryError):
        raise
    except Exception as error:
        named = _unstorable_parameters(io, model)
        culprits = f", which {', '.join(named)} {'is' if len(named) == 1 else 'are'} not"
        raise ValueError(
            "`model` must be made of what can be loaded again: numbers, strings, arrays, modules, "
            f"and classes and functions that can be imported{culprits if named else ''} "
            f"({type(error).__name__}: {error}). Replace lambdas, and whatever was "
            "defined inside a function, by something that is defined in a module."
        ) from error
    return content


def _unstorable_parameters(io: ModuleType, model: Any) -> list[str]:
    """Return the names of the parameters of an estimator that cannot be stored."""
    named = []
    for name, value in model.get_params().items():
        if not isinstance(value, str | int | float | BaseEstimator | None):
            try:
                content = io.dumps(storable(value))
                io.loads(content, trusted=io.get_untrusted_types(data=content))
            except Exception:
                named.append(f"`{name}`")
    return named


def _holds_classifier(model: Any) -> bool:
    """Whether a model is an estimator that is or holds a classifier of this package."""
    if not isinstance(model, BaseEstimator):
        return False
    seen: set[int] = set()
    rest = [model]
    while rest:
        value = rest.pop()
        if isinstance(value, VersionedMixin):
            return True
        if id(value) in seen or isinstance(value, str | bytes | type):
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            rest += value.values()
        elif isinstance(value, list | tuple | set) or _of_objects(value):
            rest += list(value)
        elif hasattr(value, "__dict__"):
            rest += vars(value).values()
    return False


def _of_objects(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.hasobject


def _write(content: bytes, path: str | os.PathLike[str]) -> None:
    """Write a file whole or not at all; what is no file, such as a pipe, is written to."""
    path = os.fsdecode(path)
    with suppress(FileNotFoundError):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            with open(path, "wb") as file:
                file.write(content)
            return
    target = Path(os.path.realpath(path))
    # No longer than the name itself, if that is long: file systems bound its length.
    written = target.with_name(f".{uuid4().hex}"[: max(12, len(target.name))])
    file = open(written, "xb")  # noqa: SIM115  what is there already is not ours to take away
    try:
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, written)
        os.replace(written, target)
    except BaseException:
        written.unlink(missing_ok=True)
        raise


def _skops() -> ModuleType:
    try:
        import skops.io
    except ImportError as error:
        raise ImportError("Files of models need skops: pip install skops.") from error
    return skops.io
