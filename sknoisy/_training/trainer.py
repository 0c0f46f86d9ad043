"""Which stages a net goes through, and which of the networks it ends with."""

from __future__ import annotations

from typing import Any

import numpy as np

from sknoisy._stages.em import warn_of_no_convergence
from sknoisy._stages.folds import next_fold
from sknoisy._stages.selection import (
    ERRORS_OF_SUPPORT,
    Candidate,
    NamedStart,
    Start,
    select,
    select_dropout,
    select_noise_model,
    select_start,
)
from sknoisy._training.trials import TrialsOfStarts

#: Weights of the c-model for each row, above which it is not tried unless it was asked for.
_MOST_WEIGHTS_PER_ROW = 20

#: Mean noise rate of the classes from which on an s-model gets a second test.
_MUCH_NOISE = 0.05

#: Parts of the rows by which a noise model is judged, as long as they leave it open.
_MOST_PARTS = 3


class Trainer(TrialsOfStarts):
    """Take a net through its stages, and keep the noise model only if it earns its place.

    Rows are held out, or, when they are few, each part of them is held out in turn from a network
    that is trained on the others. What was held out ends each stage, gives the predictions from
    which the noise layer starts, and decides between the noise model and plain training.

    Parameters
    ----------
    net : SkorchNet
    data : TrainingData
    config : TrainingConfig
    rng : numpy.random.RandomState
        Source of the split, the order of the rows and the clusters.
    progress : FitProgress
        Is told of the stages and their epochs.

    Attributes
    ----------
    initial_transition : ndarray of shape (true, observed)
        Where the noise layer started.
    candidates : list of Candidate
        What was compared, plain training first. Empty if there was nothing to compare with.
    chosen : Candidate or None
        The one that the net was given.
    estimator : NoiseEstimator
        Knows which classes have enough observed labels for an estimate of their noise.
    """

    def run(self) -> None:
        """Train the stages that the network has not been through, or the last one again."""
        config = self.config
        if self.net.network.noise is not None and config.learn_transition and config.noise_model:
            self._go_on()
        elif config.noise_model is None:
            self._finish(self._try_any_dropout("baseline"))
        elif not config.learn_transition:
            given = NamedStart("array", self._given_start())
            self._finish(self._try_any_dropout(self._joint_stage, given))
        else:
            self._finish(self._select())
        last = self.chosen
        if last is not None and last.last_change is not None and self.net.group.is_first:
            config = self.config
            warn_of_no_convergence(last.last_change, config.max_em_iter, config.tol, stacklevel=8)

    # Candidates

    def _select(self) -> Candidate:
        """Train plainly, and with noise layers, and return what explains unseen labels best."""
        config = self.config
        compared: list[Candidate] = []
        for rate in self._dropout_rates:
            self.dropout = rate
            before, compared = compared, [*compared, *self._compared()]
            if before and self._best_of(compared) is self._best_of(before):
                break
        if not self.folds:
            self.candidates = []
            return compared[-1]
        compared = select_dropout(compared)
        noisy = compared[1:]
        if config.select_noise_model or not noisy:
            plain = compared[0]
            if select_noise_model(compared) is plain and not self._is_open(plain):
                return plain
            longer = self._trained_longer(plain)
            best = select_noise_model([longer, *noisy])
            if best is longer:
                best = self._supported(longer) or self._judged_by_more_rows(longer) or plain
            return best
        return noisy[-1] if config.noise_model == "c" else select_noise_model(noisy)

    def _compared(self) -> list[Candidate]:
        """Return plain training, and the best with the s-model and with the c-model, if tried."""
        plain = self._try("baseline")
        self.candidates.append(plain)
        starts = self._starts(plain)
        if not starts:
            return [plain]
        before = plain if self._keeps_baseline(plain) else None
        ahead = self._ahead(plain, before, starts)
        names = {trial.start for trial in ahead}
        self.left_out = [start for start in starts if start.name not in names]
        tried = self._compete(ahead, before)
        cautious = self.config.select_noise_model
        best = tried[0]
        if self.folds:
            best = select_start(tried, cautious=cautious, n_errors=self._errors_of_starts)
        if self.estimator.can_recount:
            tried, best = self._refined(tried, best, before)
        self.candidates += tried
        if not self._tries_c:
            return [plain, best]
        # Where noise follows the features, the s-model may explain it worse than none does.
        others = [c for c in tried if c is not best] if cautious and self.folds else []
        with_c = [c for candidate in [best, *others] for c in self._tried_c(candidate)]
        self.candidates += with_c
        return [plain, best, *with_c]

    def _trained_longer(self, plain: Candidate) -> Candidate:
        """Return plain training to compare with, which goes on if `max_epochs` ended it.

        A noise model has two stages, and knows from the first what networks confuse. Beside plain
        training that is only half done it explains labels of hard classes far better, noisy or not.
        """
        if not plain.is_cut:
            return plain
        self.net.note("Plain training was not at its end: it goes on, to be compared with.")
        self.dropout = plain.dropout
        with self.net.without_best_epoch():
            longer = self._try(plain.stage, before=plain)
        self.candidates.append(longer)
        return self._best_of([plain, longer])

    def _is_open(self, plain: Candidate) -> bool:
        """Whether a noise model may be kept although plain training explains labels as well."""
        left_out = any(_says_much(start.transition) for start in self.left_out)
        return left_out or bool(self._with_much_noise(plain))

    def _supported(self, plain: Candidate) -> Candidate | None:
        """Return a noise model to keep although the first look is for plain training, or None.

        Where noise follows the features, a plain network predicts wrong labels as well as right
        ones, and average noise does not explain labels better. The c-model that is trained from it
        can: then the labels are noisy, and the s-model is kept. It may need a start that explains
        less after a short training. Of a few wrong labels plain training learns as well.
        """
        self.dropout = plain.dropout
        averages, wants_s = self._with_much_noise(plain), self.config.noise_model == "s"
        if averages and not wants_s:
            return None
        if not self._can_learn_c:
            return None
        if not averages:
            baseline = plain.chain[0]
            before = baseline if self._keeps_baseline(baseline) else None
            others = [start for start in self.left_out if _says_much(start.transition)]
            averages = [self._try(self._joint_stage, start, before) for start in others]
            self.candidates += averages
        with_c = [c for average in averages for c in self._tried_c(average)]
        self.candidates += with_c
        best = select([plain, *with_c], ERRORS_OF_SUPPORT)
        if best is plain:
            return None
        return best.before if wants_s else best

    def _judged_by_more_rows(self, plain: Candidate) -> Candidate | None:
        """Return a noise model to keep once more rows have been held out, or None.

        A tenth of some thousand rows may leave open what explains labels better. What was better
        there than plain training, but not clearly, is trained once more, as is plain training, with
        as many other rows held out, and judged by all of these; where that leaves it open, again.
        """
        if len(self.folds) != 1 or self.data.learns_from_answers or self.data.trusted is not None:
            return None
        noisy = self._with_much_noise(plain)
        of_stages = [[c for c in noisy if c.stage == s] for s in (self._joint_stage, "c")]
        still_open = [self._best_of(of_stage) for of_stage in of_stages if of_stage]
        for number in range(1, _MOST_PARTS):
            still_open = [c for c in still_open if c.gain(plain)[0] > 0]
            fold = next_fold(self.folds, self.data, self.seed) if still_open else None
            if fold is None:
                break
            self.folds = [*self.folds, fold]
            n_rows = len(np.asarray(fold.valid))
            self.net.note(f"Whether labels are noisy is open: {n_rows} other rows are held out.")
            for candidate in still_open:
                self._train_chain_in(number, candidate, plain)
                if self._is_kept(candidate, plain):
                    return candidate.before if self._speaks_for_s(candidate) else candidate
        return None

    def _train_chain_in(self, number: int, candidate: Candidate, plain: Candidate) -> None:
        """Train plain training, and a candidate with what it goes on from, in one more fold."""
        with self.stages.for_comparison(self.folds[number]):
            for part in [*plain.chain, *candidate.chain]:
                if len(part.states) == number:
                    part.trial = None
                    self._train_in(number, part)

    def _speaks_for_s(self, candidate: Candidate) -> bool:
        """Whether a c-model is there to judge the s-model that it was trained from."""
        return candidate.stage == "c" and self.config.noise_model == "s"

    def _is_kept(self, candidate: Candidate, plain: Candidate) -> bool:
        """Whether a noise model explains labels clearly better than plain training."""
        both = [plain, candidate]
        support = self._speaks_for_s(candidate)
        best = select(both, ERRORS_OF_SUPPORT) if support else select_noise_model(both)
        return best is candidate

    def _with_much_noise(self, plain: Candidate) -> list[Candidate]:
        """Return what was tried with the same dropout, of starts that say that much is wrong."""
        return [
            c
            for c in self.candidates
            if c.noise_model is not None and c.dropout == plain.dropout and _says_much(c.transition)
        ]

    @property
    def _tries_c(self) -> bool:
        """Whether the c-model is wanted; "auto" leaves it out where rows are too few for it."""
        wanted = self.config.noise_model
        return self._can_learn_c if wanted == "auto" else wanted == "c"

    @property
    def _can_learn_c(self) -> bool:
        """Whether there are rows enough for the weights of the c-model, and for its judgement."""
        n_targets = self.config.n_noise_targets or self.data.n_classes
        n_weights = self.data.n_classes * n_targets * self.net.network.head.in_features
        return bool(self.folds) and n_weights <= _MOST_WEIGHTS_PER_ROW * len(self.data)

    def _try_any_dropout(self, *arguments: Any) -> Candidate:
        """Try a stage with each share of dropout, and return what explains unseen labels best."""
        tried: list[Candidate] = []
        for rate in self._dropout_rates:
            self.dropout = rate
            tried.append(self._try(*arguments))
            if self.folds and self._best_of(tried) is not tried[-1]:
                break
        self.candidates = tried if len(tried) > 1 else []
        return self._best_of(tried) if self.folds else tried[0]

    def _keeps_baseline(self, plain: Candidate) -> bool:
        """Whether joint training goes on from the weights of the baseline, as in the paper.

        It starts over from new weights, since the baseline has memorised wrong labels, unless it
        needed more than half of its epochs: new weights would need them again.
        """
        if self.config.counts_confusion:
            return True
        return self.config.hold_out and 2 * plain.epochs[0] > self.config.max_epochs

    def _compete(self, trials: list[Candidate], before: Candidate | None) -> list[Candidate]:
        """Try the joint stage from each start; who is clearly behind in the first fold ends there.

        It is then left out, and the starts are in the order in which they were given.
        """
        tried = [self._candidate(self._joint_stage, t.named_start, before) for t in trials]
        for candidate, trial in zip(tried, trials, strict=True):
            if self._goes_on_from_trials and trial.states:
                candidate.trial = trial
        for number in range(len(self.folds)):
            for candidate in tried:
                self._train_in(number, candidate)
            if number == 0 and len(self.folds) > 1:
                tried = self._not_behind(tried)
        return tried

    def _tried_c(self, best: Candidate) -> list[Candidate]:
        """Try the c-model, but not in more folds where it explains less in the first."""
        candidate = self._candidate("c", best.named_start, best)
        candidate.trusted_weight = best.trusted_weight
        return self._tried_against(best, candidate)

    def _tried_against(self, best: Candidate, candidate: Candidate) -> list[Candidate]:
        """Try a candidate, but leave it out if it explains less than another in the first fold."""
        for number in range(len(self.folds)):
            self._train_in(number, candidate)
            not_last = number + 1 < len(self.folds)
            if not_last and self.config.select_noise_model and candidate.gain(best)[0] <= 0:
                return []
        return [candidate]


def _says_much(start: Start) -> bool:
    """Whether a matrix says that more than a few labels are wrong."""
    return bool(1 - np.diagonal(np.asarray(start)).mean() >= _MUCH_NOISE)
