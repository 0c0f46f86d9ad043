"""Answers of several annotators: long tables, agreement, and a consensus without features.

Rows are items. Answers are an array of shape (n_items, n_annotators), with one column for each
annotator. In the compact form there are as many columns as the item with the most answers needs,
and a second array of the same shape names who gave each answer. `sknoisy.NoisyLabelClassifier.fit`
accepts both forms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from sknoisy._crowd.annotators import fit_annotators
from sknoisy._crowd.answers import Answers, check_answers
from sknoisy._support.validation import FloatArray, parameter_error

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "DawidSkeneResult",
    "dawid_skene",
    "from_long",
    "krippendorff_alpha",
    "majority_vote",
    "to_long",
]


@overload
def from_long(
    table: pd.DataFrame,
    *,
    item: str = ...,
    annotator: str = ...,
    label: str = ...,
    compact: Literal[False] = ...,
    missing_label: Any = ...,
) -> pd.DataFrame: ...


@overload
def from_long(
    table: pd.DataFrame,
    *,
    item: str = ...,
    annotator: str = ...,
    label: str = ...,
    compact: Literal[True],
    missing_label: Any = ...,
) -> tuple[pd.DataFrame, pd.DataFrame]: ...


def from_long(
    table: pd.DataFrame,
    *,
    item: str = "item",
    annotator: str = "annotator",
    label: str = "label",
    compact: bool = False,
    missing_label: Any = None,
) -> pd.DataFrame | tuple[pd.DataFrame, pd.DataFrame]:
    """Convert a table with one row for each answer to answers with one row for each item.

    Parameters
    ----------
    table : pandas.DataFrame
        One row for each answer.
    item, annotator, label : str, default="item", "annotator", "label"
        Names of the columns for the item, the person who answered, and the answer.
    compact : bool, default=False
        Whether to use the compact form, whose columns are not annotators. It keeps the result small
        if many annotators gave few answers each.
    missing_label : scalar, default=None
        Value that stands for no answer. None means -1 for integer labels and None for others.

    Returns
    -------
    answers : pandas.DataFrame of shape (n_items, n_annotators) or (n_items, n_columns)
        Index: the items, in the order of their first answer. Columns: the annotators, sorted.
    annotators : pandas.DataFrame of shape (n_items, n_columns)
        Who gave each answer, only with ``compact=True``.

    Raises
    ------
    ValueError
        If a column or a value is missing or, without `compact`, an annotator answered twice for an
        item.

    See Also
    --------
    to_long : The inverse.

    Examples
    --------
    >>> import pandas as pd
    >>> from sknoisy.crowd import from_long
    >>> table = pd.DataFrame({"item": ["a", "a", "b"], "annotator": [7, 8, 8], "label": [1, 0, 1]})
    >>> answers = from_long(table)
    >>> answers.to_numpy().tolist(), answers.index.tolist(), answers.columns.tolist()
    ([[1, 0], [-1, 1]], ['a', 'b'], [7, 8])
    """
    names = [item, annotator, label]
    for parameter, name in zip(("item", "annotator", "label"), names, strict=True):
        if name not in getattr(table, "columns", ()):
            raise ValueError(
                f"`{parameter}` must name a column of `table`, one of "
                f"{list(getattr(table, 'columns', ()))!r}; got {name!r}."
            )
        if table[name].isna().any():
            raise ValueError(
                f"`table` must hold no missing values; column {name!r} has "
                f"{int(table[name].isna().sum())} of them."
            )
    if missing_label is None and table[label].dtype.kind in "iu":
        missing_label = -1
    elif table[label].dtype.kind in "iu" and isinstance(missing_label, str):
        raise ValueError(
            f"`missing_label` must be a number, as the labels are; got {missing_label!r}."
        )
    if missing_label is not None and (table[label] == missing_label).any():
        raise ValueError(
            f"`missing_label` must not be one of the labels; got {missing_label!r}, which "
            f"column {label!r} holds."
        )
    items = table[item].drop_duplicates()
    if not compact:
        twice = table.duplicated([item, annotator])
        if twice.any():
            first = table.loc[twice, [item, annotator]].iloc[0].tolist()
            raise ValueError(
                "`table` must hold one answer of an annotator for an item; of annotator "
                f"{first[1]!r} and item {first[0]!r} it holds several. Drop the others, or pass "
                "compact=True."
            )
        wide = table.pivot(index=item, columns=annotator, values=label).reindex(items.to_numpy())
        return _filled(wide.rename_axis(index=item), missing_label, table[label].dtype)
    place = table.groupby(item, sort=False).cumcount().rename("place")
    both = [
        table.assign(place=place)
        .pivot(index=item, columns="place", values=name)
        .reindex(items.to_numpy())
        .rename_axis(index=item, columns=None)
        for name in (label, annotator)
    ]
    answers = _filled(both[0], missing_label, table[label].dtype)
    return answers, both[1].astype(object).where(both[1].notna(), None)


def _filled(answers: pd.DataFrame, missing_label: Any, dtype: Any) -> pd.DataFrame:
    if missing_label is None:
        answers = answers.astype(object)
        return answers.where(answers.notna(), None)
    if dtype.kind in "iu" and float(missing_label).is_integer():
        return answers.fillna(missing_label).astype(np.int64)
    return answers.fillna(missing_label)


def to_long(
    y: ArrayLike | pd.DataFrame,
    annotators: ArrayLike | pd.DataFrame | None = None,
    *,
    missing_label: Any = -1,
) -> pd.DataFrame:
    """Convert answers with one row for each item to a table with one row for each answer.

    Parameters
    ----------
    y : array-like of shape (n_items, n_columns)
        The answers. The index of a DataFrame names the items, its columns the annotators.
    annotators : array-like of the shape of y, default=None
        Who gave each answer; None takes the columns of y.
    missing_label : scalar, default=-1
        Value in y that stands for no answer; None, NaN and similar values always do.

    Returns
    -------
    pandas.DataFrame
        With columns "item", "annotator" and "label".

    See Also
    --------
    from_long : The inverse.
    """
    import pandas as pd

    answers, classes = _checked(y, annotators, missing_label)
    index = np.asarray(getattr(y, "index", np.arange(len(answers))))
    return pd.DataFrame(
        {
            "item": index[answers.row],
            "annotator": answers.annotators[answers.annotator],
            "label": classes[answers.label],
        }
    )


def majority_vote(
    y: ArrayLike,
    annotators: ArrayLike | None = None,
    *,
    missing_label: Any = -1,
    random_state: Any = None,
) -> NDArray[Any]:
    """Return the label that most annotators gave to each item; ties are broken at random.

    Parameters
    ----------
    y : array-like of shape (n_items, n_columns)
    annotators : array-like of the shape of y, default=None
        Ignored; present for consistency with the other functions.
    missing_label : scalar, default=-1
        Value that stands for no answer, in y and, for items without any, in the result.
    random_state : int, RandomState instance or None, default=None
        Seed of the tie-breaking.

    Returns
    -------
    ndarray of shape (n_items,)

    Examples
    --------
    >>> from sknoisy.crowd import majority_vote
    >>> majority_vote([[0, 1, 1], [2, -1, 2], [-1, -1, -1]])
    array([ 1,  2, -1])
    """
    answers, classes = _checked(y, annotators, missing_label)
    labels = classes[answers.majority(check_random_state(random_state))]
    unanswered = answers.counts == 0
    if not unanswered.any():
        return labels
    if missing_label is None or classes.dtype.kind in "OUb":
        labels = labels.astype(object)
    labels[unanswered] = missing_label
    return labels


def krippendorff_alpha(
    y: ArrayLike, annotators: ArrayLike | None = None, *, missing_label: Any = -1
) -> float:
    r"""Return the agreement of annotators beyond chance, Krippendorff's alpha of nominal labels.

    Parameters
    ----------
    y : array-like of shape (n_items, n_columns)
    annotators : array-like of the shape of y, default=None
        Ignored; present for consistency with the other functions.
    missing_label : scalar, default=-1
        Value in y that stands for no answer; None, NaN and similar values always do.

    Returns
    -------
    float
        1 if all agree, 0 if they agree as often as expected by chance, negative if less often. NaN
        if all answers are the same, because agreement then cannot be told from chance.

    Raises
    ------
    ValueError
        If no item has two answers.

    Notes
    -----
    .. math:: \alpha = 1 - \frac{D_o}{D_e}, \quad
        D_o = \sum_u \sum_{c \neq c'} \frac{n_{uc} n_{uc'}}{m_u - 1}, \quad
        D_e = \sum_{c \neq c'} \frac{n_c n_{c'}}{n - 1},

    where item u has :math:`m_u \ge 2` answers, :math:`n_{uc}` of them for class c, and n is the
    number of these answers [1]_.

    References
    ----------
    .. [1] K. Krippendorff, "Content analysis: an introduction to its methodology", chapter 12,
       4th edition, 2018.

    Examples
    --------
    >>> from sknoisy.crowd import krippendorff_alpha
    >>> krippendorff_alpha([[0, 0], [1, 1], [0, 0], [1, 1]])
    1.0
    """
    answers, _ = _checked(y, annotators, missing_label)
    votes = answers.votes()[answers.counts >= 2]
    if not len(votes):
        raise ValueError("`y` must hold at least two answers for some item, to measure agreement.")
    sizes, of_class = votes.sum(axis=1), votes.sum(axis=0)
    observed = float(((sizes**2 - (votes**2).sum(axis=1)) / (sizes - 1.0)).sum())
    expected = float((sizes.sum() ** 2 - (of_class**2).sum()) / (sizes.sum() - 1.0))
    return 1.0 - observed / expected if expected else float("nan")


class DawidSkeneResult(NamedTuple):
    """Result of `dawid_skene`.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        The sorted labels.
    annotators : ndarray of shape (n_annotators,)
    posterior : ndarray of shape (n_items, n_classes)
        Probabilities of the true label of each item.
    transitions : ndarray of shape (n_annotators, true, observed)
        Rows are true classes, and sum to one.
    """

    classes: NDArray[Any]
    annotators: NDArray[Any]
    posterior: FloatArray
    transitions: FloatArray

    @property
    def labels(self) -> NDArray[Any]:
        """The most likely label of each item, shape (n_items,)."""
        return np.asarray(self.classes[self.posterior.argmax(axis=1)])


def dawid_skene(
    y: ArrayLike,
    annotators: ArrayLike | None = None,
    *,
    missing_label: Any = -1,
    annotator_prior: float = 1.0,
    max_iter: int = 100,
) -> DawidSkeneResult:
    """Estimate true labels and the matrix of each annotator from answers alone.

    The method of Dawid and Skene [1]_, with each matrix shrunk towards the one of all annotators.

    Parameters
    ----------
    y : array-like of shape (n_items, n_columns)
        One column for each annotator or, with `annotators`, as many columns as the item with the
        most answers needs.
    annotators : array-like of the shape of y, default=None
        Who gave each answer.
    missing_label : scalar, default=-1
        Value in y that stands for no answer; None, NaN and similar values always do.
    annotator_prior : float, default=1.0
        Number of answers of each true class that the matrix of all annotators is worth in the
        estimate of each single one.
    max_iter : int, default=100
        Maximum number of iterations of expectation maximisation. With few answers for each item,
        many iterations can let a class vanish into one that it is confused with.

    Returns
    -------
    DawidSkeneResult

    References
    ----------
    .. [1] A. P. Dawid and A. M. Skene, "Maximum likelihood estimation of observer error-rates using
       the EM algorithm", Applied Statistics 28, 1979.

    Examples
    --------
    >>> from sknoisy.crowd import dawid_skene
    >>> dawid_skene([[0, 0, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1]]).labels
    array([0, 1, 0, 1])
    """
    with parameter_error("annotator_prior", "be a positive number"):
        if not annotator_prior > 0:
            raise ValueError(f"got {annotator_prior!r}.")
    answers, classes = _checked(y, annotators, missing_label)
    transitions, posterior = fit_annotators(
        answers, annotator_prior=annotator_prior, max_iter=max_iter
    )
    return DawidSkeneResult(classes, answers.annotators, posterior, transitions)


def _checked(y: Any, annotators: Any, missing_label: Any) -> tuple[Answers, NDArray[Any]]:
    return check_answers(y, annotators, missing_label=missing_label)
