"""Validation of X, whether it is an array or a data set."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from sklearn.utils import gen_batches
from sklearn.utils.validation import assert_all_finite
from torch import Tensor, nn

from sknoisy._data.indexable import IndexableDataset, array_parts, take_rows
from sknoisy._support import validation
from sknoisy._support.numbers import FloatType, as_floats, float_type
from sknoisy._support.validation import parameter_error
from sknoisy.exceptions import UnreliableFitWarning

_ITEMS_TO_LOOK_AT = 8
_NUMBERS_AT_ONCE = 2**18


def check_rows(
    estimator: Any,
    X: Any,
    *,
    reset: bool,
    network_type: FloatType | None = None,
    training: bool = True,
    keep_integers: bool = False,
) -> Any:
    """Validate X, and set or compare what its rows are like.

    Parameters
    ----------
    estimator, reset, network_type, training
        As for `sknoisy._support.validation.check_features`.
    X : array-like, CSR or IndexableDataset of shape (n_samples, ...)
    keep_integers : bool, default=False
        Whether whole numbers go to the network as they are.

    Returns
    -------
    ndarray, CSR array or IndexableDataset of shape (n_samples, ...)
        The arrays as from `check_features`; whole numbers that are kept, and data sets, as they
        came.

    Warns
    -----
    UnreliableFitWarning
        If the view to evaluate gives other values each time.
    """
    if not isinstance(X, IndexableDataset):
        if reset:
            vars(estimator).pop("_input_names", None)
        elif getattr(estimator, "_input_names", None):
            raise ValueError(
                f"X must have the inputs {_listed(estimator._input_names)}, as in fit; got "
                f"{type(X).__name__}."
            )
        if keep_integers:
            return _checked_integers(estimator, X, reset=reset)
        return validation.check_features(
            estimator, X, reset=reset, network_type=network_type, training=training
        )
    X.check_length()
    if len(X) == 0:
        raise ValueError("Found data with 0 sample(s) (shape=(0,)) while a minimum of 1 is needed.")
    arrays = X.arrays()
    if arrays is not None:
        _check_arrays(arrays, X, network_type, keep_integers=keep_integers, training=training)
        shapes = {name: part.shape[1:] for name, part in (array_parts(arrays) or {}).items()}
    else:
        shapes = _shapes_of_items(X, training=training)
    names = sorted(map(str, shapes)) if list(shapes) != [""] else None
    row_shape = tuple(map(int, shapes[""] or ())) if names is None else ()
    if reset:
        estimator._row_shape = row_shape
        vars(estimator).pop("_input_names", None)
        if names is not None:
            estimator._input_names = names
        if row_shape:
            estimator.n_features_in_ = row_shape[0]
        else:
            vars(estimator).pop("n_features_in_", None)
        vars(estimator).pop("feature_names_in_", None)
    elif names != getattr(estimator, "_input_names", None):
        raise ValueError(
            f"X must have the inputs {_listed(getattr(estimator, '_input_names', None))}, as in "
            f"fit; got {_listed(names)}."
        )
    elif row_shape and estimator._row_shape and row_shape != estimator._row_shape:
        raise ValueError(
            f"X has rows of shape {row_shape}, but {type(estimator).__name__} was fitted on rows "
            f"of shape {estimator._row_shape}."
        )
    return X


def float_type_of(X: Any) -> FloatType:
    """Return float64 for data in double precision, otherwise float32."""
    if not isinstance(X, IndexableDataset):
        return float_type(X)
    parts = array_parts(X.arrays() if X.holds_arrays else _first_inputs(X)) or {}
    if list(parts) == [""] and getattr(parts[""].dtype, "kind", "f") in "iu" and X.holds_arrays:
        blocks = (float_type(block) for block in _blocks(parts[""], X))
        return np.float64 if np.float64 in blocks else np.float32
    types = {str(part.dtype).removeprefix("torch.") for part in parts.values()}
    floats = {name for name in types if name.startswith("float")}
    return np.float64 if floats == {"float64"} else np.float32


def asks_for_integers(estimator: Any, X: Any, *, fitted: bool) -> bool:
    """Whether whole numbers go to the module of an estimator as they are.

    A module asks for them by an attribute ``input_dtype`` that is a type of whole numbers, or by a
    first layer that is an `Embedding` or an `EmbeddingBag`. Of a fitted estimator its network
    says so; a class is built for the question, with the generators put back after it.
    """
    if not _holds_integers(X):
        return False
    if fitted:
        return takes_integers(estimator.net_.network.hidden)
    module = estimator.module
    if module is None or isinstance(module, nn.Module) or hasattr(module, "input_dtype"):
        return takes_integers(module)
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            return takes_integers(module(**estimator._params_of("module")))
    except Exception:  # which is told where the network is built
        return False
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def takes_integers(module: Any) -> bool:
    """Whether a module asks for whole numbers."""
    dtype = getattr(module, "input_dtype", None)
    if isinstance(dtype, torch.dtype):
        return not dtype.is_floating_point
    if not isinstance(module, nn.Module):
        return False
    with_weights = (m for m in module.modules() if list(m.parameters(recurse=False)))
    return isinstance(next(with_weights, None), nn.Embedding | nn.EmbeddingBag)


def _holds_integers(X: Any) -> bool:
    if isinstance(X, IndexableDataset):
        arrays = X.arrays()
        single = arrays is not None and not isinstance(arrays, Mapping | tuple)
        return single and _kind(arrays) in "iu"
    if isinstance(X, list | tuple):
        try:
            X = np.asarray(X)
        except ValueError:
            return False
    if hasattr(X, "iloc"):
        kinds = {getattr(dtype, "kind", "O") for dtype in getattr(X, "dtypes", ())}
        return bool(kinds) and kinds <= set("iu")
    return getattr(X, "ndim", 0) >= 2 and not hasattr(X, "nnz") and _kind(X) in "iu"


def _kind(part: Any) -> str:
    """Return the kind of numbers of an array or a tensor, as of numpy's types."""
    if isinstance(part.dtype, torch.dtype):
        if part.dtype.is_floating_point:
            return "f"
        return "b" if part.dtype == torch.bool else "c" if part.dtype.is_complex else "i"
    return str(part.dtype.kind)


def _checked_integers(estimator: Any, X: Any, *, reset: bool) -> np.ndarray:
    with parameter_error("X", "hold whole numbers"):
        X = validation.as_array(estimator, X, reset)
        if X.dtype.kind == "u" and X.size and X.max() > np.iinfo(np.int64).max:
            raise ValueError(f"got {X.max()}, which is no number of 64 bits with a sign.")
    validation.check_row_shape(estimator, X, reset=reset)
    return X


def _check_arrays(
    arrays: Any,
    X: IndexableDataset,
    network_type: FloatType | None,
    *,
    keep_integers: bool,
    training: bool,
) -> None:
    """Refuse numbers that are not finite, and whole ones that would lose digits."""
    for name, part in (array_parts(arrays) or {}).items():
        kind = _kind(part)
        which = "X" if name == "" else f"X[{name!r}]"
        if kind not in "biuf":
            raise TypeError(f"`{which}` must hold numbers; got {part.dtype}.")
        if kind != "f" and (name != "" or keep_integers):
            continue
        with parameter_error(which, "hold finite numbers, a row for each sample"):
            for block in _blocks(part, X):
                assert_all_finite(block, input_name=which)
                as_floats(block, block, network_type, training=training)


def _blocks(part: Any, X: IndexableDataset) -> Iterator[np.ndarray]:
    """Yield the rows of an array that belong to X, some at a time."""
    per_row = max(1, int(np.prod(part.shape[1:])))
    for index in gen_batches(len(X), max(1, _NUMBERS_AT_ONCE // per_row)):
        block = take_rows(part, X.rows(index))
        yield block.cpu().numpy() if isinstance(block, Tensor) else block


def _first_inputs(X: IndexableDataset) -> Any:
    (inputs,) = X.inputs([0])
    return inputs


def _shapes_of_items(X: IndexableDataset, *, training: bool) -> dict[str, Any]:
    """Return the shapes of the inputs by name, None where they differ or there is none."""
    some = np.linspace(0, len(X) - 1, min(len(X), _ITEMS_TO_LOOK_AT)).astype(np.intp)
    items = X.inputs(some)
    if training and not all(map(_same, items, X.inputs(some))):
        warnings.warn(
            "The items of `X` differ each time they are fetched, as with augmentation: held-out "
            "rows, predictions and what is learned of the noise would be blurred by it. Pass the "
            "same rows without augmentation, sknoisy.IndexableDataset(dataset, evaluation=...).",
            UnreliableFitWarning,
            stacklevel=2,
        )
    first = items[0]
    names = first if isinstance(first, Mapping) else range(len(first)) if _is_tuple(first) else [""]
    shapes: dict[Any, Any] = {}
    for name in names:
        parts = [item if name == "" else item[name] for item in items]
        forms = {tuple(part.shape) if hasattr(part, "shape") else None for part in parts}
        shapes[name] = forms.pop() if len(forms) == 1 else None
        for part, row in zip(parts, some.tolist(), strict=True):
            _check_finite(part, "X" if name == "" else f"X[{name!r}]", int(X.rows([row])[0]))
    return shapes


def _check_finite(part: Any, which: str, row: int) -> None:
    if not _is_numeric(part):
        return
    values = np.asarray(part.detach().cpu() if isinstance(part, Tensor) else part)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"`{which}` must hold finite numbers; item {row} holds NaN or infinity.")


def _is_numeric(part: Any) -> bool:
    return isinstance(part, Tensor | np.ndarray) and part.dtype != object


def _is_tuple(item: Any) -> bool:
    return isinstance(item, tuple)


def _same(item: Any, other: Any) -> bool:
    if isinstance(item, Mapping):
        return all(_same(item[name], other[name]) for name in item)
    if isinstance(item, tuple):
        return all(map(_same, item, other))
    if isinstance(item, Tensor):
        return item.shape == other.shape and bool(torch.equal(item, other))
    if isinstance(item, np.ndarray):
        return bool(np.array_equal(item, other))
    return type(item) is type(other)


def _listed(names: list[str] | None) -> str:
    return "of one array" if names is None else ", ".join(names)
