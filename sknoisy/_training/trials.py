"""Starts of the noise layer: found, compared after a short joint training, trained and refined."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from sknoisy._net.summary import check_no_nan
from sknoisy._stages.folds import Fold
from sknoisy._stages.selection import (
    ERRORS_OF_STARTS,
    Candidate,
    NamedStart,
    Start,
    select,
    select_start,
)
from sknoisy._training.base import BaseTrainer
from sknoisy._training.noise_estimates import (
    Predict,
    all_but_the_same,
    are_far,
    say_no_noise,
)
from sknoisy._transition.starts import Estimate, with_own_label_likeliest
from sknoisy._transition.trusted import trusted_counts

_NO_NOISE = NamedStart()
_MOST_RECOUNTS = 5
_SHORT_TRAINING = 8  # one epoch for so many of the baseline
_SHORTEST_TRAINING = 4
_CLEARLY_BETTER = 1e-3
_COUNTS = "confident", "hard"

#: Standard errors by which a start must be ahead, after a short training or in the first of
#: several parts, to be the only one.
ERRORS_OF_TRIALS = 2.0
ERRORS_OF_SIMPLEST = 4.0


class TrialsOfStarts(BaseTrainer):
    """Find starts, leave out those that explain less after a short training, and refine the others.

    Parameters and attributes are those of `Trainer`.
    """

    def _given_start(self) -> Start:
        """Return what the user gave to start from."""
        return np.asarray(self.config.transition_init)

    def _starts(self, plain: Candidate) -> list[NamedStart]:
        """Return what the noise layer may start from, the simplest first.

        Those of the paper and of its code, None, are computed from the network that training goes
        on from.
        """
        init = self.config.transition_init
        if not isinstance(init, str):
            return [NamedStart("array", self._given_start())]
        if self.config.counts_confusion:
            return [NamedStart(init)]
        if not self.folds or self.estimator.supported.sum() < 2:
            return []
        began, self.estimator.optimism = time.perf_counter(), 0.0
        estimates = self.net.group.lead(self.estimator.estimates, self._predictor(plain))
        if not self.config.hold_out and {"calibrated", "mixture"} <= estimates.keys():
            self._pay_for_shrunk_entries(estimates["calibrated"], estimates["mixture"])
        seconds = time.perf_counter() - began
        self.net.note(f"Start of the noise layer: {', '.join(estimates)}, in {seconds:.1f} s.")
        if "confident" in estimates:
            # With many classes all starts are poor, and refined later.
            names = ["mixture"] if self.estimator.has_many_classes else []
            others = {name: estimates.pop(name) for name in [*names, "confident", "hard"]}
            estimates |= self._most_likely(others)
        starts = self._named(estimates)
        silent = {start.name for start in starts if say_no_noise([np.asarray(start.transition)])}
        if self.config.select_noise_model and len(silent) == len(starts):
            return []
        return [start for start in starts if start.name != "uniform" or "uniform" not in silent]

    @staticmethod
    def _named(estimates: dict[str, Estimate]) -> list[NamedStart]:
        """Return estimates as starts, whose own labels are likeliest."""
        likeliest = with_own_label_likeliest
        return [
            NamedStart(
                name, likeliest(found.transition), [likeliest(one) for one in found.of_parts]
            )
            for name, found in estimates.items()
        ]

    def _pay_for_shrunk_entries(self, calibrated: Estimate, mixture: Estimate) -> None:
        """Let the calibrated start pay for what is free in its rows, if there are some classes.

        Where the mixture says something else: of two that are near, the shrunk one is mostly nearer
        to the truth. And unless rows are few: then rows of the matrix are shrunk by as many labels
        as those that are left out ask for.
        """
        estimator, differ = self.estimator, are_far(calibrated.transition, mixture.transition)
        if differ and estimator.can_tell_structure:
            estimator.optimism = estimator.of_entries(calibrated.transition, calibrated.shrunk_by)

    def _predictor(self, plain: Candidate) -> Predict:
        """Return what the baseline says of given rows, or that of the fold that held them out."""
        if not self.was_cross_fitted:
            self.stages.restore(plain.states[0])
            return self._predict
        log_proba = np.full((len(self.data), self.data.n_classes), np.nan)
        for fold, state in zip(self.folds, plain.states, strict=True):
            self.stages.restore(state)
            log_proba[fold.valid] = self._predict(np.asarray(fold.valid))
        return log_proba.__getitem__

    def _predict(self, rows: np.ndarray) -> np.ndarray:
        """Return what the network says of given rows."""
        predicted = self.net.clean_log_proba(self.data.dataset(rows))
        check_no_nan(self.net, predicted)
        return predicted.numpy()

    def _most_likely(self, starts: dict[str, Estimate]) -> dict[str, Estimate]:
        """Return the start under which held-out labels are likeliest after one joint epoch.

        The first one wins unless another is clearly better. An epoch from the weights of the
        baseline tells two ways to count apart, but not them from a matrix of much more noise:
        beside that the predictions have to become surer first.
        """
        losses, baseline = [], self.stages.state()
        for start in starts.values():
            losses.append(self.stages.loss_after(self.folds[0], 1, start.transition))
            self.stages.restore(baseline)
        losses[0] -= _CLEARLY_BETTER
        best = list(starts)[int(np.argmin(losses))]
        return {best: starts[best]}

    def _candidate(self, stage: str, start: NamedStart, before: Candidate | None) -> Candidate:
        of_folds = start.of_folds
        penalty = 0.0 if of_folds else self.estimator.penalty(start.name, start.transition)
        return Candidate(
            stage, *start[:2], before, of_folds=of_folds, penalty=penalty, dropout=self.dropout
        )

    def _begin(self, number: int, candidate: Candidate) -> None:
        """Give the network the weights from which the training of a candidate starts."""
        if candidate.trial is not None:
            self.stages.restore(candidate.trial.states[number])
        elif candidate.before is None:
            self.stages.start_over()
        else:
            self.stages.restore(candidate.before.states[number])

    def _ahead(
        self,
        plain: Candidate,
        before: Candidate | None,
        starts: list[NamedStart],
    ) -> list[Candidate]:
        """Return short joint trainings of the starts that are not clearly behind another one.

        Of starts that are all but the same, that of the simpler one; a single start needs no
        training. Where the training that follows goes on from there, a start that is far behind
        after the first epochs ends with them, those that are not clearly behind are trained twice
        as long, and the best of them goes on. So does the simplest start unless it is far behind:
        one that has more to explain with, and is estimated from the same labels, is ahead in the
        first epochs more often than at their end.
        """
        distinct: list[NamedStart] = []
        for start in starts:
            matrix = np.asarray(start.transition)
            if not any(all_but_the_same(matrix, np.asarray(s.transition)) for s in distinct):
                distinct.append(start)
        tried = [self._candidate("start", start, before) for start in distinct]
        if len(tried) == 1 or not self.folds:
            return tried
        simplest = distinct[0].name
        n_epochs = max(_SHORTEST_TRAINING, plain.epochs[0] // _SHORT_TRAINING)
        n_epochs = min(n_epochs, self.config.max_epochs)
        if not self.config.hold_out:
            # Parts are trained in little time, but few rows do not tell an overfitted matrix.
            n_errors = ERRORS_OF_TRIALS if self.estimator.has_few_rows else ERRORS_OF_SIMPLEST
            self._go_on_with_trials(tried, n_epochs)
            return self._not_behind(tried, n_errors)
        looks = [(n_epochs, ERRORS_OF_TRIALS)]
        if self._goes_on_from_trials:
            looks.insert(0, (min(_SHORTEST_TRAINING, n_epochs), ERRORS_OF_SIMPLEST))
            looks.append((min(2 * n_epochs, self.config.max_epochs), ERRORS_OF_TRIALS))
        for length, n_errors in looks:
            self._go_on_with_trials(tried, length)
            tried = self._not_behind(tried, n_errors, simplest=simplest)
        best = self._best_trial(tried)
        return [c for c in tried if c is best or c.start == simplest]

    @staticmethod
    def _best_trial(tried: list[Candidate]) -> Candidate:
        """Return what explains labels best; counts have to be ahead of the mixture.

        A few hundred labels hardly tell them apart, and the mixture is mostly nearer to the truth.
        """
        best = max(tried, key=lambda candidate: candidate.gain(tried[0])[0])
        mixture = [candidate for candidate in tried if candidate.start == "mixture"]
        if mixture and best.start in _COUNTS:
            return select([*mixture, best], ERRORS_OF_STARTS)
        return best

    @property
    def _goes_on_from_trials(self) -> bool:
        """Whether the joint training goes on from the short one of its start.

        Where each part is held out in turn, the short one was on the first of them only.
        """
        return self.config.hold_out and not self.data.learns_from_answers

    def _go_on_with_trials(self, trials: list[Candidate], n_epochs: int) -> None:
        """Train several candidates jointly until they have had so many epochs, and judge them."""
        for trial in trials if len(trials) > 1 else []:
            more = n_epochs - sum(trial.epochs)
            if more <= 0:
                continue
            if trial.states:
                self.stages.restore(trial.states.pop())
            else:
                self._begin(0, trial)
            transition = None if trial.epochs else np.asarray(trial.start_in(0))
            self.stages.loss_after(self.folds[0], more, transition, number=len(trial.epochs))
            trial.epochs.append(more)
            trial.states.append(self.stages.state())
            trial.judge(self.stages.unseen_log_likelihood(self.folds[0]), self.data.weight)

    @staticmethod
    def _not_behind(
        tried: list[Candidate],
        n_errors: float = ERRORS_OF_TRIALS,
        *,
        simplest: str | None = None,
    ) -> list[Candidate]:
        """Leave out the candidates that the best one is ahead of by so many standard errors.

        The simplest start if it is ahead by `ERRORS_OF_SIMPLEST`.
        """
        best = max(tried, key=lambda candidate: candidate.gain(tried[0])[0])

        def is_behind(candidate: Candidate) -> bool:
            gain, error = best.gain(candidate)
            return gain > error * (ERRORS_OF_SIMPLEST if candidate.start == simplest else n_errors)

        return [candidate for candidate in tried if not is_behind(candidate)]

    # Candidates

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

    # Checked labels

    def _trusted_counts(self, observed: Candidate) -> np.ndarray:
        """Return counts of true against observed classes of the rows whose label was checked.

        Parameters
        ----------
        observed : Candidate
            That knows no checked label.
        """
        data, rows = self.data, self.data.rows_trusted
        proba = self._proba_of(observed, rows)
        return trusted_counts(proba, data.target[rows], data.weight_of(rows))

    def _proba_of(self, candidate: Candidate, rows: np.ndarray) -> np.ndarray:
        """Return the mean of what the networks of all folds predict of some rows."""
        proba = np.zeros((len(rows), self.data.n_classes))
        for state in candidate.states:
            self.stages.restore(state)
            proba += np.exp(self._predict(rows).astype(np.float64))
        return proba / len(candidate.states)
