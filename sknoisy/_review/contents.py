"""What a row looks like: its text, its picture or its features, whatever holds them."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import _safe_indexing

_PICTURES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
}
_LARGEST_PICTURE = 2_000_000
_ROWS_TO_TELL = 20


class Contents:
    """The rows that labels belong to.

    Parameters
    ----------
    X : array-like of shape (n_samples, ...), data set or None
        Texts, paths of pictures, pictures, a DataFrame or features. A data set has a method
        ``inputs``, from row numbers to what its items hold of these rows; of several inputs the
        first text or else the first picture is shown.

    Attributes
    ----------
    kind : {"text", "path", "picture", "table", "features", "nothing"}
    """

    def __init__(self, X: Any) -> None:
        self.X = X
        self.kind = _kind(X)

    def columns(self, rows: np.ndarray) -> dict[str, list[Any]]:
        """Return what a table has of these rows: texts, paths, or columns of strings, by name."""
        if self.kind in ("text", "path"):
            return {self.kind: [str(value) for value in self._take(rows)]}
        if self.kind == "table":
            frame = self.X.iloc[rows]
            return {
                str(name): frame[name].astype(str).tolist()
                for name in frame.columns
                if _are_strings(frame[name])
            }
        return {}

    def text(self, row: int) -> str | None:
        """Return the text or path of a row, or None."""
        return str(self._take([row])[0]) if self.kind in ("text", "path") else None

    def picture(self, row: int) -> str | None:
        """Return the picture of a row as an address that holds it, or None if there is none."""
        if self.kind == "picture":
            return png_address(np.asarray(self._take([row]))[0])
        if self.kind != "path":
            return None
        path = Path(str(self._take([row])[0]))
        if not path.is_file() or path.stat().st_size > _LARGEST_PICTURE:
            return None
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        return f"data:{_PICTURES[path.suffix.lower()]};base64,{data}"

    def features(self, row: int) -> list[tuple[str, str]]:
        """Return names and values of the features of a row, if that is what it has."""
        if self.kind == "table":
            values = self.X.iloc[row]
            return [(str(name), _rounded(value)) for name, value in values.items()]
        if self.kind != "features":
            return []
        values = self._take([row])
        values = values.toarray() if sparse.issparse(values) else values
        return [(f"x{i}", _rounded(value)) for i, value in enumerate(np.asarray(values)[0].ravel())]

    def nearest(
        self, rows: np.ndarray, labels: np.ndarray, observed: np.ndarray, trusted: np.ndarray,
        instead: np.ndarray, n_nearest: int = 2,
    ) -> np.ndarray:  # fmt: skip
        """Return the nearest rows that have a label and are trusted.

        Parameters
        ----------
        rows : ndarray of int of shape (n_rows,)
        labels : ndarray of shape (n_rows,)
            Encoded labels of which rows are sought.
        observed : ndarray of shape (n_samples,)
            Encoded labels of all rows.
        trusted : ndarray of bool of shape (n_samples,)
        instead : ndarray of shape (n_samples, n_classes)
            What rows are compared by that have no numbers, as texts.
        n_nearest : int, default=2

        Returns
        -------
        ndarray of int of shape (n_rows, n_nearest)
            -1 where there are too few.
        """
        found = np.full((len(rows), n_nearest), -1)
        scale = None
        for label in np.unique(labels):
            pool = np.flatnonzero(trusted & (observed == label))
            sought = np.flatnonzero(labels == label)
            if not len(pool):
                continue
            if scale is None:
                scale = self._scale(instead)
            nearest = NearestNeighbors(n_neighbors=min(n_nearest, len(pool)))
            nearest.fit(self._numbers(pool, instead) * scale)
            of_pool = nearest.kneighbors(
                self._numbers(rows[sought], instead) * scale, return_distance=False
            )
            found[sought[:, None], np.arange(of_pool.shape[1])] = pool[of_pool]
        return found

    def _scale(self, instead: np.ndarray) -> Any:
        """Return the inverse standard deviations of the columns that rows are compared by."""
        if self.kind != "table":
            return 1.0
        deviation = self._numbers(np.arange(len(instead)), instead).std(axis=0)
        return np.where(deviation > 0, 1.0 / np.where(deviation > 0, deviation, 1.0), 0.0)

    def _numbers(self, rows: np.ndarray, instead: np.ndarray) -> Any:
        if self.kind == "table":
            numeric = self.X.select_dtypes("number")
            if numeric.shape[1]:
                return np.nan_to_num(numeric.iloc[rows].to_numpy(dtype=np.float64))
        elif self.kind in ("features", "picture") and not hasattr(self.X, "inputs"):
            values = self._take(rows)
            if sparse.issparse(values):
                return values
            return np.asarray(values, dtype=np.float64).reshape(len(rows), -1)
        return instead[rows]

    def _take(self, rows: Any) -> Any:
        if hasattr(self.X, "inputs"):
            return [_shown(inputs) for inputs in self.X.inputs(rows)]
        return _safe_indexing(self.X, np.asarray(rows))


def _kind(X: Any) -> str:
    if X is None:
        return "nothing"
    if hasattr(X, "iloc") and getattr(X, "ndim", 1) == 2:
        return "table"
    if sparse.issparse(X):
        return "features"
    if hasattr(X, "inputs"):
        X = [_shown(inputs) for inputs in X.inputs(range(min(len(X), _ROWS_TO_TELL)))]
    if getattr(X, "ndim", 1) == 1:
        told = list(_first(X))
        if told and all(isinstance(value, str | Path) for value in told):
            paths = all(Path(str(value)).suffix.lower() in _PICTURES for value in told)
            return "path" if paths else "text"
    try:
        array = np.asarray(X)
    except ValueError:
        return "nothing"
    if array.dtype.kind not in "fiub":
        return "nothing"
    return "picture" if _is_picture(array) else "features" if array.ndim >= 2 else "nothing"


def _shown(inputs: Any) -> Any:
    """Return the text, the picture or the numbers of an item."""
    values = list(inputs.values()) if isinstance(inputs, Mapping) else [inputs]
    values = list(inputs) if isinstance(inputs, tuple) else values
    values = [value.numpy(force=True) if hasattr(value, "numpy") else value for value in values]
    values = [np.asarray(v) if hasattr(v, "getbands") else v for v in values]  # of Pillow
    texts = [value for value in values if isinstance(value, str | Path)]
    pictures = [value for value in values if np.ndim(value) in (2, 3)]
    return [*texts, *pictures, *values][0]


def _first(X: Any) -> Sequence[Any]:
    return list(X.iloc[:_ROWS_TO_TELL] if hasattr(X, "iloc") else X[:_ROWS_TO_TELL])


def _is_picture(array: np.ndarray) -> bool:
    if array.ndim == 3:
        return min(array.shape[1:]) > 1
    return array.ndim == 4 and (array.shape[-1] in (1, 3, 4) or array.shape[1] in (1, 3, 4))


def _are_strings(column: Any) -> bool:
    values = column.dropna().head(_ROWS_TO_TELL)
    return bool(len(values)) and all(isinstance(value, str) for value in values)


def _rounded(value: Any) -> str:
    if isinstance(value, bool | np.bool_ | str) or value is None:
        return str(value)
    try:
        return f"{float(value):.4g}"
    except (TypeError, ValueError):
        return str(value)


def png_address(picture: np.ndarray) -> str:
    """Return a picture as a ``data:`` address of a PNG file.

    Parameters
    ----------
    picture : ndarray of shape (height, width), (height, width, channels) or (channels, ...)
        One, three or four channels. Whole numbers of eight bits are kept; anything else is scaled
        to the range of the picture.
    """
    if picture.ndim == 3 and picture.shape[-1] not in (1, 3, 4):
        picture = np.moveaxis(picture, 0, -1)
    if picture.dtype != np.uint8:
        values = np.nan_to_num(picture.astype(np.float64))
        low, high = values.min(), values.max()
        picture = np.round(255 * (values - low) / ((high - low) or 1.0)).astype(np.uint8)
    n_channels = 1 if picture.ndim == 2 else picture.shape[-1]
    height, width = picture.shape[:2]
    lines = picture.reshape(height, width * n_channels)
    data = b"".join(b"\0" + line.tobytes() for line in lines)
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 4: 6}[n_channels], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    file = b"\x89PNG\r\n\x1a\n" + b"".join(_chunks(chunks))
    return f"data:image/png;base64,{base64.b64encode(file).decode('ascii')}"


def _chunks(chunks: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for kind, data in chunks:
        check = zlib.crc32(kind + data)
        yield struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)
