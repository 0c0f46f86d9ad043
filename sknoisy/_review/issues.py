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
    """Labels that are probably wrong, the most suspicious first, from `find_label_issues`.

    A dictionary whose keys are also attributes.

    Parameters
    ----------
    X : array-like of shape (n_samples, ...) or None
    y : ndarray of shape (n_samples,)
        Observed labels of all rows.
    index : pandas Index or None
        Index of the data.
    log_proba : ndarray of shape (n_samples, true)
        Log-probabilities of the true labels, given the features.
    **found
        The attributes.

    Attributes
    ----------
    indices : ndarray of shape (count,)
        Positions of the rows, in order of increasing quality: ``X[issues.indices]``,
        ``df.iloc[...]``.
    quality : ndarray of shape (count,)
        Probability that the observed label of each of these rows is right.
    all_quality : ndarray of shape (n_samples,) or Series
        Quality of all rows, as `label_quality` returns it.
    observed_labels, suggested_labels : ndarray of shape (count,)
        Their labels, and the most likely other label of each.
    suggested_proba : ndarray of shape (count,)
        Probability that the suggested label is right.
    count : int
        Number of rows, the expected number of wrong labels.
    noise_rate : float
        Expected share of wrong labels.
    noise_rate_interval : tuple of float, or None
        Ends of its 90 % interval. None if the estimator was trained on these labels, if the noise
        depends on the features, or if there are more than 50 classes.
    noise_test : Bunch or None
        Result of the function of this name. None if the estimator was trained on these labels.
    transition_matrix : ndarray of shape (true, observed) or None
        None if the noise depends on the features.
    classes : ndarray of shape (n_classes,)
        Classes of its rows and columns.
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
        """A table of the issues, the most suspicious first; needs pandas.

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

        `apply_corrections` reads the completed file.

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
        `label_studio_config`. `apply_corrections` reads its export as CSV.

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
        """Write a report for reviewing the issues: one file that needs no server and no network.

        It shows the noise rate, the matrix, and the most suspicious rows with their picture, text
        or features, beside two rows that carry the suggested label. Rows can be filtered by the
        pair of labels and decided by mouse, touch or keyboard: ``a`` accepts the suggested label,
        ``k`` keeps the observed one, ``u`` undoes the decision, and ``j`` and ``p`` go to the next
        and the previous row. A button saves the decisions as a CSV file, which `apply_corrections`
        reads. Labels and texts are shown as they are and never executed.

        Parameters
        ----------
        path : str or path
        max_rows : int, default=200
            Maximum number of rows that are shown.
        X : array-like of shape (n_samples, ...), default=None
            What to show of the rows, if not their features: pictures of shape (n_samples, height,
            width[, channels]), paths of pictures, texts, or a DataFrame.
        title : str, default="Labels that are probably wrong"
        """
        contents = self.contents if X is None else Contents(X)
        Path(path).write_text(
            report.page(self, contents, title=title, max_rows=max_rows), encoding="utf-8"
        )
