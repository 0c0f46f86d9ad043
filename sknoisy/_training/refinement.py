"""Candidates trained and judged, and estimates from joint training with which they begin anew."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from sknoisy._stages.folds import Fold
from sknoisy._stages.selection import (
    ERRORS_OF_STARTS,
    Candidate,
    NamedStart,
    select,
    select_start,
)
from sknoisy._training.noise_estimates import Predict, all_but_the_same, are_far
from sknoisy._training.trials import ERRORS_OF_TRIALS, TrialsOfStarts
from sknoisy._transition.starts import Estimate

_NO_NOISE = NamedStart()
_MOST_RECOUNTS = 5


class RefinementOfStarts(TrialsOfStarts):
    """Train candidates in each fold, and refine the matrices that they start from.

    Parameters and attributes are those of `Trainer`.
    """

    def _try(
        self,
        stage: str,
        start: NamedStart = _NO_NOISE,
        before: Candidate | None = None,
    ) -> Candidate:
        """Train a stage in each fold and judge it by the rows that are held out there."""
        candidate = self._candidate(stage, start, before)
        for number in range(len(self.folds)):
            self._train_in(number, candidate)
        return candidate

    def _train_in(self, number: int, candidate: Candidate) -> None:
        """Train a candidate in one of the folds, and judge it by all rows held out so far."""
        self._begin(number, candidate)
        trial = candidate.trial
        end = self.stages.train(candidate, self.folds[number], number=number, trial=trial)
        candidate.is_cut |= not end.stopped
        candidate.epochs.append(end.best_epoch + (sum(trial.epochs) if trial else 0))
        candidate.states.append(self.stages.state())
        self._judge_candidate(candidate, self.folds[number])

    def _judge_candidate(
        self, candidate: Candidate, fold: Fold, transition: np.ndarray | None = None
    ) -> None:
        log_likelihood = self.stages.unseen_log_likelihood(fold, transition)
        log_likelihood[candidate.rows] = candidate.log_likelihood
        candidate.judge(log_likelihood, self.data.weight)

    @staticmethod
    def _best_of(candidates: list[Candidate]) -> Candidate:
        """Return what explains unseen labels best, however little better it is."""
        return select(candidates, 0.0)

    # Estimates from joint training

    def _refined(
        self, tried: list[Candidate], best: Candidate, before: Candidate | None
    ) -> tuple[list[Candidate], Candidate]:
        """Return what was tried, also with estimates from joint training, and the best of all.

        With few rows of a class the estimates of all starts are refined, among them that of the
        most cautious one: which of them leads further is chance.
        """
        firsts = [best]
        if self.estimator.leaves_parts_out:
            cautious = [start for start in self.left_out if start.name == "calibrated"]
            tried = [*tried, *[self._try(self._joint_stage, start, before) for start in cautious]]
            firsts += [candidate for candidate in tried if candidate is not best]
        ends: list[Candidate] = []
        for first in firsts:
            again, end = self._estimated_again(first, tried)
            tried, ends = [*tried, *again], [*ends, end]
        return tried, self._best_of(ends)

    def _estimated_again(
        self, best: Candidate, known: list[Candidate]
    ) -> tuple[list[Candidate], Candidate]:
        """Return what was trained with estimates from the joint training, and the best of all.

        Where rows are not few, one wrong label a class is the simplest explanation.
        """
        again = self._tried_again(best, known)
        if self.estimator.has_few_rows or not self.estimator.has_many_classes:
            no_better = bool(again) and self._best_of([best, *again]) is best
            if no_better and again[0].start == "sparse" and self.estimator.has_few_rows:
                again += self._tried_again(best, [*known, *again], balanced=False)
            n_errors = self._errors_of_starts
            return again, select_start([best, *again], cautious=True, n_errors=n_errors)
        sparse = [c for c in again if c.start == "sparse"]
        others = [c for c in again if c.start != "sparse"]
        return again, select_start([*sparse, best, *others], cautious=True)

    def _tried_again(
        self, best: Candidate, known: list[Candidate], *, balanced: bool = True
    ) -> list[Candidate]:
        """Train anew with an estimate from the joint training, as long as it helps.

        With many classes, or few rows of each, the predictions of the baseline are poor, and so is
        the start: a network that was trained jointly knows more. A sparse estimate is trained with
        even where it explains less beside predictions that were trained with another matrix; where
        rows are not few and it is clearly behind then, it is not sought again. Where starts are not
        poor, an estimate has to explain more at once, and training goes on from the same weights
        unless the estimate is far from what they were trained with; after one that is near there is
        no other. Where each part judges an estimate from the others, that ends where another led.
        """
        tried, last = list[Candidate](), best
        poor = self.estimator.starts_are_poor
        recount = partial(self.estimator.recounts, balanced=balanced and poor)
        for _ in range(_MOST_RECOUNTS):
            found = self._recounted(recount, last)
            if found is None:
                break
            name, matrix = found.name, np.asarray(found.transition)
            if self.estimator.leaves_parts_out and any(
                all_but_the_same(matrix, np.asarray(c.transition)) for c in [*known, *tried]
            ):
                break
            anew = poor or not self.config.hold_out or are_far(matrix, np.asarray(last.transition))
            before = best.before if anew else last
            tried.append(self._try(self._joint_stage, found, before))
            previous, last = last, tried[-1]
            gain, error = last.gain(previous)
            if not anew or (name == previous.start and gain <= ERRORS_OF_TRIALS * error):
                break
            is_behind = gain < -ERRORS_OF_TRIALS * error
            if name == "sparse" and is_behind and not self.estimator.has_few_rows:
                last, recount = best, partial(recount, sparse=False)
        return tried

    def _recounted(
        self, recount: Callable[[Predict], dict[str, Estimate]], last: Candidate
    ) -> NamedStart | None:
        """Return the estimate that explains most beside the predictions that it comes from.

        None if it explains no more than what these were trained with. Where starts are poor, a
        sparse one is returned in any case.
        """
        estimates = self.net.group.lead(recount, self._predictor(last))
        self.estimator.optimism = self.net.group.once(lambda: self.estimator.optimism)
        starts = {start.name: start for start in self._named(estimates)}
        poor = self.estimator.starts_are_poor
        if poor and "sparse" in starts:
            return starts["sparse"]
        gains = {name: self._gain_beside(last, start) for name, start in starts.items()}
        best = max(gains, key=lambda name: gains[name][0])
        gain, error = gains[best]
        is_better = gain > (0.0 if poor else self._errors_of_starts * error)
        return starts[best] if is_better else None

    @property
    def _errors_of_starts(self) -> float:
        """Standard errors by which a start must be better; none where other labels judge it."""
        others_judge = self.estimator.judges_apart or self.estimator.leaves_parts_out
        return 0.0 if others_judge else ERRORS_OF_STARTS

    def _gain_beside(self, best: Candidate, start: NamedStart) -> tuple[float, float]:
        """Return by how much another start explains more beside equal predictions, and the error.

        The predictions are those of networks that were trained with the start of `best`.
        """
        beside = self._candidate("start", start, None)
        for number, (fold, state) in enumerate(zip(self.folds, best.states, strict=True)):
            self.stages.restore(state)
            self._judge_candidate(beside, fold, np.asarray(beside.start_in(number)))
        return beside.gain(best)
