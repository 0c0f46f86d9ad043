"""Models in files that run no code when they are loaded and are never half written."""

from __future__ import annotations

import os
import shutil
import warnings
import zipfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

from sklearn.exceptions import InconsistentVersionWarning

from sknoisy._version import __version__

_VERSION = "_sknoisy_version"

# What `skops.io` is told to trust, for a classifier with the default network.
SKOPS_TRUSTED_TYPES = [
    "sknoisy._data.batches.ArrayBatches",
    "sknoisy._data.batches.ArrayDataset",
    "sknoisy._classifier.classifier.NoisyLabelClassifier",
    "sknoisy._model.network.MLP",
    "sknoisy._model.network.NoisyLabelNetwork",
    "sknoisy._training.net.NoiseAdaptationNet",
    "sknoisy._training.stream.Stream",
    "sknoisy._model.noise_layers.ClassTransition",
    "sknoisy._model.noise_layers.FeatureTransition",
    "sknoisy._model.noise_layers.SparseFeatureTransition",
    "torch.nn.modules.activation.ReLU",
    "torch.nn.modules.dropout.Dropout",
    "torch.nn.modules.flatten.Flatten",
    "torch.nn.modules.linear.Linear",
    "torch.nn.modules.loss.NLLLoss",
    "torch.optim.adam.Adam",
]


class VersionedMixin:
    """Let an estimator that is loaded say when another version of the package saved it."""

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        # The net holds the history as well, and keeps it in less space.
        state = {name: value for name, value in state.items() if name != "history_"}
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
        super().__setstate__(state)  # type: ignore[misc]
        if "net_" in state:
            self.history_ = state["net_"].history


def save_model(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted classifier, or what holds one, to a file that is safe to load.

    The file is in the format of `skops.io`, which holds arrays and names of types and no pickle.
    It is written beside `path` and moved there when it is whole: when the disk is full, or the
    process killed, a file of that name stays as it was.

    Parameters
    ----------
    model : estimator
        A `NoisyLabelClassifier`, or a pipeline with one in it.
    path : str or path-like
        The file, by convention ``*.skops``. Its directory must be there.

    Raises
    ------
    ImportError
        If skops is not installed.
    OSError
        If the file cannot be written.

    See Also
    --------
    load_model : Load it again.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn.datasets import load_iris
    >>> from sknoisy import NoisyLabelClassifier, load_model, save_model
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = NoisyLabelClassifier(random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(classifier, Path(folder) / "model.skops")
    ...     loaded = load_model(Path(folder) / "model.skops")
    >>> bool((loaded.predict_proba(X) == classifier.predict_proba(X)).all())
    True
    """
    content = _skops().dumps(model)
    path = Path(os.path.realpath(path))
    written = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with open(written, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, written)
        os.replace(written, path)
    except BaseException:
        written.unlink(missing_ok=True)
        raise


def load_model(path: str | os.PathLike[str], *, trusted: Iterable[str] = ()) -> Any:
    """Load a model that `save_model` or `skops.io` wrote, without running code from the file.

    Parameters
    ----------
    path : str or path-like
    trusted : iterable of str, default=()
        Types to trust besides those of scikit-learn, numpy and `SKOPS_TRUSTED_TYPES`, such as
        your own module and its layers: ``"my_package.MyModule"``. They are imported and their
        objects made, so name none that you do not know.

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
        If the file is truncated or tampered with, is no model, or holds a type that is not
        trusted.

    See Also
    --------
    save_model : Write such a file.
    """
    io = _skops()
    content = Path(path).read_bytes()
    known = [*SKOPS_TRUSTED_TYPES, *trusted]
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        untrusted = set(io.get_untrusted_types(data=content)).difference(known)
        if not untrusted:
            return io.loads(content, trusted=known)
    except (Warning, MemoryError):
        raise
    except Exception as error:
        raise ValueError(
            f"`path` must be a whole file of `save_model`; {str(path)!r} is truncated, tampered "
            f"with or something else ({type(error).__name__}: {error})."
        ) from error
    raise ValueError(
        f"`path` must hold trusted types only; {str(path)!r} holds {', '.join(sorted(untrusted))}. "
        "Pass those that you know as `trusted`."
    )


def _skops() -> ModuleType:
    try:
        import skops.io
    except ImportError as error:
        raise ImportError("Files of models need skops: pip install skops.") from error
    return skops.io
