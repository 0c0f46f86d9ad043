"""The choice among starts and noise models: what explains unseen observed labels best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sknoisy._crowd.annotators import AnnotatorNoise

#: Standard errors by which a start of the noise layer must be better than another one, where the
#: labels that judge it are among those that it was estimated from.
ERRORS_OF_STARTS = 1.0

#: Standard errors by which a noise model must be better than none: a one-sided test at 5 %.
ERRORS_OF_NOISE_MODELS = 1.64

#: Standard errors by which the c-model must be better than plain training for an s-model to be kept
#: that itself is not: a test at 1 %, since more weights alone may fit hard data better.
ERRORS_OF_SUPPORT = 2.33

#: Where a noise layer starts: a matrix, those of annotators, or None for what the paper computes.
Start = np.ndarray | AnnotatorNoise | None


class NamedStart(NamedTuple):
    """Where a noise layer starts, and what it is called.

    Attributes
    ----------
    name : str or None
    transition : ndarray of shape (true, observed), AnnotatorNoise or None
    of_folds : sequence of ndarray of shape (true, observed)
        In each fold the same estimate without the labels that are held out there, by which it is
        judged. Empty where the layer starts from the same matrix everywhere.
    """

    name: str | None = None
    transition: Start = None
    of_folds: Sequence[np.ndarray] = ()


#: A noise layer, or None, and the weights of the network with it.
State = tuple[Any, dict[str, Any]]


@dataclass
class Candidate:
    """A network with or without a noise layer, and how well it explains unseen labels.

    Attributes
    ----------
    stage : str
        The stage of training that ended with it: "baseline", "s", "c" or "em"; "observed" for a
        baseline that knows no checked label, and "trusted" for one that knows no other.
    start : str or None
        Name of the start of the noise layer.
    transition : ndarray of shape (true, observed), AnnotatorNoise or None
        Where the noise layer started.
    before : Candidate or None
        The candidate that its training went on from.
    of_folds : sequence of ndarray of shape (true, observed)
        As of `NamedStart`.
    rows : ndarray of int of shape (n_judged,)
        The rows that were held out.
    log_likelihood : ndarray of shape (n_judged,)
        Log-likelihood of the observed label of each row that was held out, with the clean
        probabilities sharpened as suits these labels best. Overconfidence, which differs between
        networks more than what they know, therefore makes no difference.
    weight : ndarray of shape (n_judged,)
        Sample weights of these rows, of mean one.
    trial : Candidate or None
        The short training with the same start that its own went on from.
    penalty : float
        What is taken off its gain, for a start whose entries were estimated from the same labels:
        by half an entry a row, its log-likelihood is too high.
    epochs : list of int
        The best epoch in each fold.
    states : list of (noise layer, weights)
        What was trained in each fold.
    is_cut : bool
        Whether `max_epochs` ended its training in some fold.
    last_change : float or None
        Of the log-likelihood, when EM ran out of iterations.
    trusted_weight : int
        How often a row whose label was checked is trained on in an epoch.
    dropout : float or None
        Share of hidden units that is dropped in training; None is that of the network.
    """

    stage: str
    start: str | None = None
    transition: Start = None
    before: Candidate | None = None
    trial: Candidate | None = None
    of_folds: Sequence[np.ndarray] = ()
    penalty: float = 0.0
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    log_likelihood: np.ndarray = field(default_factory=lambda: np.empty(0))
    weight: np.ndarray = field(default_factory=lambda: np.empty(0))
    epochs: list[int] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    is_cut: bool = False
    last_change: float | None = None
    trusted_weight: int = 1
    dropout: float | None = None

    @property
    def noise_model(self) -> str | None:
        """The value of the parameter `noise_model` that it stands for."""
        stands_for = {"baseline": None, "observed": None, "em": "s", "trusted": "s"}
        return stands_for.get(self.stage, self.stage)

    @property
    def named_start(self) -> NamedStart:
        """Where the noise layer starts."""
        return NamedStart(self.start, self.transition, self.of_folds)

    def start_in(self, number: int) -> Start:
        """Return where the noise layer starts in one of the folds."""
        return self.of_folds[number] if self.of_folds else self.transition

    @property
    def chain(self) -> list[Candidate]:
        """The candidates that training goes through, this one the last."""
        return [*([] if self.before is None else self.before.chain), self]

    def judge(self, log_likelihood: np.ndarray, weight: np.ndarray | None) -> None:
        """Take note of the log-likelihoods of all rows, NaN where a row was not held out."""
        self.rows = np.flatnonzero(~np.isnan(log_likelihood))
        self.log_likelihood = log_likelihood[self.rows]
        self.weight = np.ones(len(self.rows))
        if weight is not None and len(self.rows):
            self.weight = weight[self.rows] / weight[self.rows].mean()

    def gain(self, other: Candidate, among: np.ndarray | None = None) -> tuple[float, float]:
        """Return by how much it explains a label better than another, and the standard error.

        Of the rows that were held out from both, or of some of them; zero if there are none.
        """
        mine, others = np.isin(self.rows, other.rows), np.isin(other.rows, self.rows)
        if among is not None:
            mine, others = mine & np.isin(self.rows, among), others & np.isin(other.rows, among)
            if not mine.any():
                return 0.0, 0.0
        gains = self.weight[mine] * (self.log_likelihood[mine] - other.log_likelihood[others])
        gain = float(gains.mean()) - self.penalty + other.penalty
        return gain, float(gains.std() / np.sqrt(max(len(gains), 1)))

    def report(self, baseline: Candidate) -> dict[str, Any]:
        """Return what a user may want to know of it."""
        gain, error = self.gain(baseline)
        return {
            "noise_model": self.noise_model,
            "start": self.start,
            "log_likelihood": float(np.mean(self.weight * self.log_likelihood)),
            "gain": gain,
            "standard_error": error,
            **({"trusted_weight": self.trusted_weight} if self.trusted_weight > 1 else {}),
            **({} if self.dropout is None else {"dropout": self.dropout}),
        }


def select(candidates: Sequence[Candidate], n_errors: float) -> Candidate:
    """Return the best candidate, and the earlier one where two are as good.

    Parameters
    ----------
    candidates : sequence of Candidate
        From the simplest to the most complex one.
    n_errors : float
        A later one wins when its mean log-likelihood is higher by more than so many standard
        errors of the difference.
    """
    best = candidates[0]
    for candidate in candidates[1:]:
        gain, error = candidate.gain(best)
        if gain > n_errors * error:
            best = candidate
    return best


def select_start(
    starts: Sequence[Candidate], *, cautious: bool, n_errors: float = ERRORS_OF_STARTS
) -> Candidate:
    """Return the best start of the noise layer.

    Parameters
    ----------
    starts : sequence of Candidate
        The most cautious one first.
    cautious : bool
        Of starts that are as good, the first one is taken; the last one where noise is taken for
        granted.
    n_errors : float, default=1.0
        Standard errors within which starts are as good.
    """
    return select(starts if cautious else starts[::-1], n_errors)


def select_noise_model(candidates: Sequence[Candidate]) -> Candidate:
    """Return the best of networks without noise, with the s-model and with the c-model."""
    return select(candidates, ERRORS_OF_NOISE_MODELS)


def select_dropout(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the best network of each noise model, the simpler model first.

    Parameters
    ----------
    candidates : sequence of Candidate
        With any share of dropout. Where two are as good, the earlier one is taken.
    """
    of_models = [[c for c in candidates if c.noise_model == model] for model in (None, "s", "c")]
    return [select(of_model, 0.0) for of_model in of_models if of_model]
