"""The fit, its stages and their epochs as tasks of scikit-learn's callbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sklearn.callback import CallbackSupportMixin


class FitProgress:
    """Tell scikit-learn's callbacks, such as its progress bar, what a fit is doing.

    Parameters
    ----------
    estimator : estimator with ``CallbackSupportMixin``
        Its fit has begun.
    X, y : array-like
        The training data, as they came.
    fitted : callable
        Returns the fitted attributes as they are in the middle of the fit, for callbacks that
        score the estimator.
    is_told : bool, default=True
        Whether the callbacks are told: one of several processes tells them for all.
    """

    def __init__(
        self,
        estimator: CallbackSupportMixin,
        X: Any,
        y: Any,
        fitted: Callable[[], dict[str, Any]],
        *,
        is_told: bool = True,
    ) -> None:
        self._open: list[Any] = []
        self._fit: Any = None
        self._listened = is_told and bool(getattr(estimator, "_skl_callbacks", None))
        if not is_told:
            return
        self._begin = {"estimator": estimator, "X": X, "y": y}
        self._end = {**self._begin, "reconstruction_attributes": fitted}
        self._fit = estimator._init_callback_context(max_subtasks=None)
        self._fit.call_on_fit_task_begin(**self._begin)

    def begin_stage(self, stage: str, max_epochs: int) -> None:
        """Begin a stage of at most so many epochs."""
        if self._listened:
            self._stage = self._fit.subcontext(task_name=stage, max_subtasks=max_epochs)
            self._open = [self._stage]
            self._stage.call_on_fit_task_begin(**self._begin)

    def begin_epoch(self) -> None:
        """Begin an epoch of the stage."""
        if self._listened:
            self._epoch = self._stage.subcontext(task_name="epoch")
            self._open = [self._epoch, self._stage]
            self._epoch.call_on_fit_task_begin(**self._begin)

    def end_epoch(self) -> bool:
        """End the epoch; return whether a callback asks to end the stage."""
        self._open = self._open[1:]
        return self._listened and self._epoch.call_on_fit_task_end(**self._end)

    def end_stage(self) -> None:
        """End the stage."""
        self._open = []
        if self._listened:
            self._stage.call_on_fit_task_end(**self._end)

    def end_interrupted(self) -> None:
        """End the epoch and the stage that an interrupted fit has left open."""
        for task in self._open:
            task.call_on_fit_task_end(**self._end)

    def end(self) -> None:
        """End the fit."""
        if self._fit is not None:
            self._fit.call_on_fit_task_end(**self._end)


@contextmanager
def fit_progress(
    estimator: CallbackSupportMixin,
    X: Any,
    y: Any,
    fitted: Callable[[], dict[str, Any]],
    *,
    is_told: bool = True,
) -> Iterator[FitProgress]:
    """Tell scikit-learn's callbacks of the fit inside the block; parameters as of `FitProgress`."""
    progress = FitProgress(estimator, X, y, fitted, is_told=is_told)
    yield progress
    progress.end()
