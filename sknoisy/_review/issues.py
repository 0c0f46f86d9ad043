"""The rows that are probably labelled wrong, with what a reviewer needs."""

from __future__ import annotations

import csv
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from sknoisy._review import exports, report
from sknoisy._review.contents import Contents

#: Labels of rows that are shown as evidence must be right with this probability.
_TRUSTED_QUALITY = 0.5


class LabelIssues(Bunch):
    """Labels that are probably wrong, the worst first; made by `find_label_issues`.

    A dictionary whose keys are attributes.

    Parameters
    ----------
    X : array-like of shape (n_samples, ...) or None
    y : ndarray of shape (n_samples,)
        Observed labels of all rows.
    index : pandas Index or None
        Of the data.
    log_proba : ndarray of shape (n_samples, true)
        Log-probabilities of the true labels, given the features.
    **found
        The attributes.

    Attributes
    ----------
    indices : ndarray of shape (count,)
        Positions of the rows, by rising quality: ``X[issues.indices]``, ``df.iloc[...]``.
    quality : ndarray of shape (count,)
        Probability that the observed label of each of these rows is right.
    all_quality : ndarray of shape (n_samples,) or Series
        That of all rows, as from `label_quality`: cross-fitting need not be done twice.
    observed_labels, suggested_labels : ndarray of shape (count,)
        Their labels, and the likeliest of the other ones.
    suggested_proba : ndarray of shape (count,)
        Probability that the suggested label is right.
    count : int
        Number of rows, the expected number of wrong labels.
    noise_rate : float
        Expected share of wrong labels.
    noise_rate_interval : tuple of float, or None
        Ends of its interval of 90 %, as of `transition_interval`. None where the estimator was
        trained on the labels, the noise depends on the features, or there are more than 50 classes.
    noise_test : Bunch or None
        As from the function of this name, unless the estimator was trained on the labels.
    transition_matrix : ndarray of shape (true, observed) or None
        None where the noise depends on the features.
    classes : ndarray of shape (n_classes,)
        Of its rows and columns.
    """

    def __init__(
        self, X: Any, y: np.ndarray, index: Any, log_proba: np.ndarray, **found: Any
    ) -> None:
        super().__init__(**found)
        self._X, self._y, self._index, self._log_proba = X, y, index, log_proba

    # Bunch keeps attributes as keys; these are none of the results.

    def __setattr__(self, key: str, value: Any) -> None:
        if key.startswith("_") or isinstance(getattr(type(self), key, None), cached_property):
            self.__dict__[key] = value
        else:
            super().__setattr__(key, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(type(self))})

    def __repr__(self) -> str:
        return report.summary_text(self)

    def _repr_html_(self) -> str:
        return report.summary_html(self)

    @cached_property
    def contents(self) -> Contents:
        """The rows that labels belong to."""
        return Contents(self._X)

    @cached_property
    def nearest(self) -> np.ndarray:
        """The two nearest rows that are labelled as suggested, and probably right.

        Positions, an array of shape (count, 2), -1 where there are too few. Rows are compared by
        their features; texts and paths by the probabilities that the classifier gives them.
        """
        return self.nearest_of(np.arange(self.count))

    def nearest_of(self, which: np.ndarray) -> np.ndarray:
        """Return `nearest` for some of the issues only, by their rank."""
        position = {label: number for number, label in enumerate(self.classes.tolist())}
        suggested = np.array([position[s] for s in self.suggested_labels[which].tolist()], int)
        observed = np.array([position[label] for label in self._y.tolist()], dtype=int)
        trusted = np.asarray(self.all_quality) > _TRUSTED_QUALITY
        trusted[self.indices] = False
        return self.contents.nearest(
            self.indices[which], suggested, observed, trusted, self._log_proba
        )

    @cached_property
    def frame(self) -> Any:
        """A table of the issues, the worst first; needs pandas.

        A DataFrame with the index of the data, or row numbers, and the columns

        - ``row``: position of the row;
        - ``observed_labels``, ``suggested_labels``;
        - ``quality``, ``suggested_proba``: the probabilities that they are right;
        - ``nearest_1``, ``nearest_2``: positions of the two nearest rows that are labelled as
          suggested, -1 where there are none;
        - ``text`` or ``path``, or each column of strings, if `X` has such.
        """
        import pandas as pd

        index = self._index
        table = self.table(with_nearest=True)
        return pd.DataFrame(table, index=self.indices if index is None else index[self.indices])

    def table(self, *, with_nearest: bool = True) -> dict[str, Any]:
        """Return the columns of `frame` by name."""
        columns = {
            "row": self.indices,
            "observed_labels": self.observed_labels,
            "suggested_labels": self.suggested_labels,
            "quality": self.quality,
            "suggested_proba": self.suggested_proba,
        }
        if with_nearest:
            columns |= {"nearest_1": self.nearest[:, 0], "nearest_2": self.nearest[:, 1]}
        return columns | self.contents.columns(self.indices)

    def to_csv(self, path: str | Path) -> None:
        """Write `frame` as a CSV file with an empty column ``label``, to be filled in.

        `apply_corrections` takes the file back.

        Parameters
        ----------
        path : str or path
        """
        columns = self.table() | {"label": [""] * self.count}
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            lists = [list(np.asarray(column).tolist()) for column in columns.values()]
            writer.writerows(zip(*lists, strict=True))

    def to_label_studio(self, path: str | Path) -> None:
        """Write tasks for Label Studio, with the suggested labels as predictions.

        A JSON file in Label Studio's format of pre-annotated tasks. Set the project up with
        `label_studio_config`; its export as CSV is what `apply_corrections` takes.

        Parameters
        ----------
        path : str or path
        """
        tasks = exports.label_studio_tasks(self)
        Path(path).write_text(json.dumps(tasks, ensure_ascii=False, indent=1), encoding="utf-8")

    def label_studio_config(self) -> str:
        """Return the labelling interface for the tasks of `to_label_studio`, in XML."""
        return exports.label_studio_config(self)

    def to_argilla(self, path: str | Path) -> None:
        """Write records for Argilla 2, with the suggested labels as suggestions.

        A JSON file for ``dataset.records.from_json(path)`` of a dataset with a field ``text``, or
        ``image`` for pictures, a label question ``label``, and the metadata ``row``,
        ``observed_labels`` and ``quality``.

        Parameters
        ----------
        path : str or path
        """
        records = exports.argilla_records(self)
        Path(path).write_text(json.dumps(records, ensure_ascii=False, indent=1), encoding="utf-8")

    def to_html(
        self,
        path: str | Path,
        *,
        max_rows: int = 200,
        X: Any = None,
        title: str = "Labels that are probably wrong",
    ) -> None:
        """Write a report to look at and to decide in: one file that needs no server and no network.

        It shows the noise rate, the matrix, and the worst rows with their picture, text or
        features, next to two rows that are labelled as suggested. Rows are filtered by the pair of
        labels, and decided on by mouse, touch or keyboard: ``a`` accepts the suggested label,
        ``k`` keeps the observed one, ``u`` takes the decision back, and ``j`` and ``p`` go to the
        next and the previous row. A button saves the decisions as a CSV file, which
        `apply_corrections` takes. Labels and texts are shown as they are, never run.

        Parameters
        ----------
        path : str or path
        max_rows : int, default=200
            Most rows that are shown.
        X : array-like of shape (n_samples, ...), default=None
            What to show of the rows, if not what was judged: pictures of shape (n_samples, height,
            width[, channels]), paths of pictures, texts, or a DataFrame.
        title : str, default="Labels that are probably wrong"
        """
        contents = self.contents if X is None else Contents(X)
        Path(path).write_text(
            report.page(self, contents, title=title, max_rows=max_rows), encoding="utf-8"
        )
