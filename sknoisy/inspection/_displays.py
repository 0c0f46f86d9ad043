"""Plots of the noise and of the training. Matplotlib is imported when one is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils._optional_dependencies import check_matplotlib_support

from sknoisy._support.meta_estimators import unwrap_fitted
from sknoisy._support.validation import check_transition_matrix
from sknoisy.inspection._uncertainty import transition_interval

#: More classes than these get colours without numbers.
_MOST_WITH_VALUES = 15

#: Most labels along an axis; of more classes every second, fifth, tenth... is labelled.
_MOST_TICKS = 25
_TICK_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

_STAGE_NAMES = {
    "s": "s-model",
    "c": "c-model",
    "em": "EM",
    "observed": "observed labels",
    "trusted": "checked labels",
}


class TransitionMatrixDisplay:
    """Plot of a transition matrix: which label is observed for which true class.

    Create it with `from_estimator`, `from_predictions` or `from_matrix`. All parameters are stored
    as attributes.

    Parameters
    ----------
    transition_matrix : ndarray of shape (true, observed)
        Rows are true classes and sum to one.
    display_labels : ndarray of shape (n_classes,), default=None
        Names of the classes; None: numbers from 0.

    Attributes
    ----------
    im_ : matplotlib AxesImage
        The matrix.
    text_ : ndarray of matplotlib Text of shape (true, observed), or None
        The numbers; None if there are none. Numbers that round to zero are left out.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    TrainingCurveDisplay : The loss over the stages of training.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sknoisy.inspection import TransitionMatrixDisplay
    >>> from sknoisy.noise import pair_transition
    >>> display = TransitionMatrixDisplay.from_matrix(
    ...     pair_transition(3, 0.4), display_labels=["cat", "dog", "lynx"]
    ... )
    >>> display.text_[0, 1].get_text()
    '0.40'
    >>> plt.close(display.figure_)
    """

    def __init__(
        self, transition_matrix: np.ndarray, *, display_labels: ArrayLike | None = None
    ) -> None:
        self.transition_matrix = transition_matrix
        self.display_labels = display_labels

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        y: ArrayLike | None = None,
        *,
        cv: Any = None,
        n_jobs: int | None = None,
        display_labels: ArrayLike | None = None,
        **kwargs: Any,
    ) -> TransitionMatrixDisplay:
        """Plot the matrix of a fitted estimator, or the one estimated by cross-fitting.

        Parameters
        ----------
        estimator : estimator
            Fitted `NoisyLabelClassifier`, pipeline that ends in one, or search over either; with
            `X` and `y`, any classifier with ``predict_proba``, which is cloned.
        X : array-like of shape (n_samples, ...), default=None
        y : array-like of shape (n_samples,), default=None
            Observed labels. If given, the matrix is that of `transition_interval`.
        cv : int, splitter or iterable of (train, test) rows, default=None
            As in `transition_interval`.
        n_jobs : int, default=None
            Number of folds that are fitted at the same time.
        display_labels : array-like of shape (n_classes,), default=None
            Names of the classes; None: those of the estimator, ``classes_``.
        **kwargs
            Parameters of `plot`.

        Returns
        -------
        TransitionMatrixDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        if (X is None) != (y is None):
            raise ValueError("`X` and `y` go together: pass both, or neither.")
        if y is not None:
            found = transition_interval(estimator, X, y, cv, n_jobs=n_jobs)
            labels = found.classes if display_labels is None else display_labels
            return cls.from_matrix(found.transition_matrix, display_labels=labels, **kwargs)
        classifier, _ = unwrap_fitted(estimator, None, "predict_transition")
        labels = classifier.classes_ if display_labels is None else display_labels
        return cls.from_matrix(classifier.transition_matrix_, display_labels=labels, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        y: ArrayLike,
        pred_proba: ArrayLike,
        *,
        classes: ArrayLike | None = None,
        display_labels: ArrayLike | None = None,
        **kwargs: Any,
    ) -> TransitionMatrixDisplay:
        """Plot the matrix that out-of-sample probabilities of the observed labels imply.

        Parameters
        ----------
        y : array-like of shape (n_samples,)
            Observed labels.
        pred_proba : array-like of shape (n_samples, n_classes)
            As ``cross_val_predict(..., method="predict_proba")`` returns them.
        classes : array-like of shape (n_classes,), default=None
            Classes of the columns of `pred_proba`; None: the sorted labels.
        display_labels : array-like of shape (n_classes,), default=None
            Names of the classes; None: the classes.
        **kwargs
            Parameters of `plot`.

        Returns
        -------
        TransitionMatrixDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_predictions")
        found = transition_interval(None, None, y, pred_proba=pred_proba, classes=classes)
        labels = found.classes if display_labels is None else display_labels
        return cls.from_matrix(found.transition_matrix, display_labels=labels, **kwargs)

    @classmethod
    def from_matrix(
        cls, transition_matrix: ArrayLike, *, display_labels: ArrayLike | None = None, **kwargs: Any
    ) -> TransitionMatrixDisplay:
        """Plot a transition matrix.

        Parameters
        ----------
        transition_matrix : array-like of shape (true, observed)
            Rows are true classes and sum to one.
        display_labels : array-like of shape (n_classes,), default=None
            Names of the classes; None: numbers from 0.
        **kwargs
            Parameters of `plot`.

        Returns
        -------
        TransitionMatrixDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_matrix")
        matrix = check_transition_matrix(transition_matrix)
        if display_labels is not None:
            display_labels = names = column_or_1d(np.asarray(display_labels))
            if len(names) != len(matrix):
                raise ValueError(
                    f"`display_labels` must name the {len(matrix)} classes of the matrix; got "
                    f"{len(names)} names."
                )
        return cls(matrix, display_labels=display_labels).plot(**kwargs)

    def plot(
        self,
        *,
        include_values: bool | str = "auto",
        cmap: Any = "Blues",
        xticks_rotation: str | float = "auto",
        values_format: str | None = None,
        ax: Any = None,
        colorbar: bool = True,
        im_kw: dict[str, Any] | None = None,
        text_kw: dict[str, Any] | None = None,
    ) -> TransitionMatrixDisplay:
        """Draw the matrix.

        Parameters
        ----------
        include_values : bool or "auto", default="auto"
            Whether to write the numbers into the cells; "auto": for up to 15 classes.
        cmap : str or matplotlib Colormap, default="Blues"
        xticks_rotation : {"auto", "vertical", "horizontal"} or float, default="auto"
            Rotation of the labels of the x-axis; "auto": vertical if they would overlap.
        values_format : str, default=None
            Format of the numbers; None: ".2f".
        ax : matplotlib Axes, default=None
            Where to draw; None: a new figure.
        colorbar : bool, default=True
        im_kw : dict, default=None
            Parameters of ``imshow``. Colours range from 0 to 1. If no numbers are shown, they
            follow the square root, so that a confusion of 1 % is visible among 100 classes.
        text_kw : dict, default=None
            Parameters of the numbers.

        Returns
        -------
        TransitionMatrixDisplay
            Itself.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt
        from matplotlib.colors import PowerNorm

        matrix, n_classes = self.transition_matrix, len(self.transition_matrix)
        if ax is None:
            _, ax = plt.subplots()
        if include_values == "auto":
            include_values = n_classes <= _MOST_WITH_VALUES
        norm = PowerNorm(1.0 if include_values else 0.5, vmin=0, vmax=1)
        self.im_ = ax.imshow(
            matrix, **{"cmap": cmap, "interpolation": "nearest", "norm": norm, **(im_kw or {})}
        )
        self.text_ = None
        if include_values:
            self.text_ = self._write_values(ax, values_format or ".2f", text_kw or {})
        if colorbar:
            ax.figure.colorbar(self.im_, ax=ax, label="probability")
        self._label(ax, xticks_rotation)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _write_values(self, ax: Any, values_format: str, text_kw: dict[str, Any]) -> np.ndarray:
        matrix = self.transition_matrix
        text = [[format(value, values_format) for value in row] for row in matrix]
        width = max(len(cell) for row in text for cell in row)
        cell = 72 * min(ax.get_window_extent().size / ax.figure.dpi) / len(matrix)
        size = float(np.clip(1.3 * cell / width, 4, 11))
        texts = np.empty(matrix.shape, dtype=object)
        for (i, j), value in np.ndenumerate(matrix):
            shade = self.im_.cmap(self.im_.norm(value))
            dark = np.dot(shade[:3], (0.299, 0.587, 0.114)) < 0.5
            blank = not any(digit in text[i][j] for digit in "123456789")
            style = {"ha": "center", "va": "center", "size": size, "color": "w" if dark else "k"}
            texts[i, j] = ax.text(j, i, "" if blank else text[i][j], **style | text_kw)
        return texts

    def _label(self, ax: Any, rotation: str | float) -> None:
        n_classes = len(self.transition_matrix)
        names = np.arange(n_classes) if self.display_labels is None else self.display_labels
        step = next((s for s in _TICK_STEPS if n_classes <= s * _MOST_TICKS), n_classes)
        ticks = np.arange(0, n_classes, step)
        labels = [str(name) for name in np.asarray(names)[ticks]]
        if rotation == "auto":
            room = 72 * ax.get_window_extent().width / ax.figure.dpi / len(ticks)
            rotation = "vertical" if 7 * max(map(len, labels)) > room else "horizontal"
        ax.set(xticks=ticks, yticks=ticks, xlabel="Observed label", ylabel="True label")
        ax.set_xticklabels(labels, rotation=rotation)
        ax.set_yticklabels(labels)


class TrainingCurveDisplay:
    """Plot of the loss on training and held-out rows over the epochs of all stages.

    Create it with `from_estimator`. All parameters are stored as attributes.

    Parameters
    ----------
    stage : array-like of str of shape (n_epochs,)
        The stage of each epoch: "baseline", "start", "s", "c", "em".
    train_loss : array-like of shape (n_epochs,)
    valid_loss : array-like of shape (n_epochs,), default=None
        NaN where no rows were held out; None if they never were.

    Attributes
    ----------
    lines_ : dict of str to list of matplotlib Line2D
        The lines of "train" and "valid", one for each stage.
    text_ : list of matplotlib Text
        The names of the stages.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    TransitionMatrixDisplay : The estimated noise.

    Notes
    -----
    The loss on held-out rows is the mean negative log-likelihood of their observed labels. The loss
    on training rows is what training minimises, so the two curves are not on the same scale in
    stages with a noise layer: it includes the penalties of the noise layer (`transition_prior`,
    `volume_penalty`), which lift it, and in EM it is the cross-entropy with the soft targets.
    Compare each curve with itself. Overfitting shows as a held-out loss that rises.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn.datasets import load_digits
    >>> from sknoisy import NoisyLabelClassifier
    >>> from sknoisy.inspection import TrainingCurveDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> classifier = NoisyLabelClassifier(
    ...     max_epochs=5, early_stopping=True, select_noise_model=False, random_state=0
    ... ).fit(X[:500], y[:500])
    >>> display = TrainingCurveDisplay.from_estimator(classifier)
    >>> [text.get_text() for text in display.text_]
    ['baseline', 'start', 's-model']
    >>> plt.close(display.figure_)
    """

    def __init__(
        self, *, stage: ArrayLike, train_loss: ArrayLike, valid_loss: ArrayLike | None = None
    ) -> None:
        self.stage = stage
        self.train_loss = train_loss
        self.valid_loss = valid_loss

    @classmethod
    def from_estimator(cls, estimator: Any, **kwargs: Any) -> TrainingCurveDisplay:
        """Plot the training of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            Fitted `NoisyLabelClassifier`, pipeline that ends in one, or search over either.
        **kwargs
            Parameters of `plot`.

        Returns
        -------
        TrainingCurveDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        classifier, _ = unwrap_fitted(estimator, None, "predict_transition")
        rows = list(classifier.history_)
        valid = [row.get("valid_loss", np.nan) for row in rows]
        return cls(
            stage=[row["stage"] for row in rows],
            train_loss=[row["train_loss"] for row in rows],
            valid_loss=None if np.isnan(valid).all() else valid,
        ).plot(**kwargs)

    def plot(
        self, *, ax: Any = None, line_kw: dict[str, Any] | None = None
    ) -> TrainingCurveDisplay:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None: a new figure.
        line_kw : dict, default=None
            Parameters of the lines.

        Returns
        -------
        TrainingCurveDisplay
            Itself.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt

        stage = np.asarray(self.stage)
        losses = {"train": np.asarray(self.train_loss, dtype=float)}
        if self.valid_loss is not None:
            losses["valid"] = np.asarray(self.valid_loss, dtype=float)
        check_consistent_length(stage, *losses.values())
        if ax is None:
            _, ax = plt.subplots()
        begins = np.flatnonzero(np.append(True, stage[1:] != stage[:-1]))
        ends = np.append(begins[1:], len(stage))
        epoch = np.arange(1, len(stage) + 1)
        self.lines_: dict[str, list[Any]] = {name: [] for name in losses}
        for (name, loss), style in zip(losses.items(), ("C0", "C1"), strict=False):
            for begin, end in zip(begins, ends, strict=True):
                label = {"train": "training rows", "valid": "held-out rows"}[name]
                shape: dict[str, str] = {"marker": "."} if end - begin < 5 else {}
                if stage[begin] == "start":  # matrices in competition, an epoch each
                    shape["linestyle"] = "none"
                options = {"color": style, "label": None if begin else label, **shape}
                self.lines_[name] += ax.plot(
                    epoch[begin:end], loss[begin:end], **options | (line_kw or {})
                )
        for begin in begins[1:]:
            ax.axvline(begin + 0.5, color="0.7", linewidth=0.8)
        self.text_ = []
        for begin, end in zip(begins, ends, strict=True):
            name = str(stage[begin])
            wide = end - begin > 0.1 * len(stage)
            text = ax.text(
                (begin + end + 1) / 2,
                1.01 if wide else 0.98,
                _STAGE_NAMES.get(name, name),
                transform=ax.get_xaxis_transform(),
                ha="center",
                va="bottom" if wide else "top",
                rotation="horizontal" if wide else "vertical",
            )
            self.text_.append(text)
        ax.set(xlabel="Epoch", ylabel="Loss per row")
        ax.xaxis.get_major_locator().set_params(integer=True)
        if len(losses) > 1:
            ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self
