"""Training from several answers a row: which networks and matrices are tried and kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import softmax

from sknoisy._crowd.annotators import (
    AnnotatorNoise,
    annotator_counts,
    estimate_annotators,
    explained_log_likelihood,
    log_answer_table,
    mean_transition,
    shrunk_transitions,
)
from sknoisy._crowd.answers import Answers
from sknoisy._data.training_data import TrainingData
from sknoisy._model.annotator_noise import AnnotatorTransition
from sknoisy._net.net import SkorchNet
from sknoisy._stages.folds import stratified_parts
from sknoisy._stages.selection import (
    Candidate,
    NamedStart,
    Start,
    select,
    select_noise_model,
    select_start,
)
from sknoisy._stages.stages import TrainingConfig
from sknoisy._training.trainer import Trainer
from sknoisy._transition.calibration import without_noise
from sknoisy._transition.trusted import best_names

_ROWS_OF_A_BLOCK = 1000
_ROWS_OF_A_BLOCK_PER_CLASS = 10

#: Answers that differ prove that some are wrong: the label of the majority has to be better by so
#: many standard errors to be preferred. Where annotators err alike, unseen answers repeat what the
#: majority got wrong, and support it.
_ERRORS_OF_MAJORITY = 3.0


class AnnotatorTrainer(Trainer):
    """Train a net through the transition matrices of annotators.

    The baseline learns the label of the majority. A network trained through the matrices that the
    answers alone suggest comes next; what the better of the two predicts of rows that it was not
    trained on gives better matrices, for a last one. They are compared by how well they explain
    answers that were held out.

    Parameters
    ----------
    net, data, config, rng, progress
        As for `Trainer`, with data that hold answers.

    Attributes
    ----------
    names : ndarray of int of shape (n_classes,)
        Which label most answers name for each true class, as far as checked labels tell.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.names = np.arange(self.data.n_classes)

    @property
    def answers(self) -> Answers:
        """The answers of all rows."""
        assert self.data.answers is not None
        return self.data.answers

    def _select(self) -> Candidate:
        """Train plainly, and through matrices, and return what explains unseen answers best."""
        if not isinstance(self.config.transition_init, str):
            return self._compare(self._judged("baseline"), [("array", self._given_start())])
        alone = [self._estimate(None)] if self.answers.counts.max() > 1 else []
        if not self.folds:
            named = [("dawid_skene", start) for start in alone]
            return Candidate(self._joint_stage, *named[0]) if named else Candidate("baseline")
        plain = self._judged("baseline" if self.data.trusted is None else "observed")
        if self.data.trusted is not None:
            self.names = best_names(self._trusted_counts(plain))
        named = [
            ("dawid_skene", start._replace(transitions=start.transitions[:, self.names]))
            for start in alone
        ]
        best = self._compare(plain, named, again=True)
        return self._judged("baseline") if best.stage == "observed" else best

    def _compare(
        self, plain: Candidate, starts: list[tuple[str, AnnotatorNoise]], *, again: bool = False
    ) -> Candidate:
        """Train from each start, and, `again`, from that which the best predictions suggest."""
        before = plain if self.folds and self._keeps_baseline(plain) else None
        tried = [self._judged(self._joint_stage, *start, before) for start in starts]
        if again:
            best = select_noise_model([plain, *tried])
            log_proba = self._predictions(best)
            log_proba = log_proba[:, self.names] if best is plain else log_proba
            start = "predicted", self._estimate(log_proba)
            tried.append(self._judged(self._joint_stage, *start, before))
        plain.transition = tried[-1].transition
        self.candidates = [plain, *tried] if self.folds else []
        if not self.folds:
            return tried[-1]
        best = select_start(tried[::-1], cautious=True)  # the last one knows the most
        if not self.config.select_noise_model:
            return best
        if self._contradicts_answers(best, plain):
            return plain
        return select([best, plain], _ERRORS_OF_MAJORITY)

    def _contradicts_answers(self, candidate: Candidate, plain: Candidate) -> bool:
        """Whether its predictions are clearly less often what annotators say than the baseline's.

        Matrices explain answers also where predictions have confused the classes. Where checked
        labels say that most answers are wrong, that is how it should be.
        """
        if np.any(self.names != np.arange(len(self.names))):
            return False
        answers, rows = self.answers, self.estimator.unseen
        rows = rows[answers.counts[rows] > 0]
        agreements = []
        for one in (candidate, plain):
            predicted = self._predictions(one).argmax(axis=1)
            agree = predicted[answers.row] == answers.label
            n_answers = np.maximum(answers.counts, 1)
            agreements.append(np.bincount(answers.row, agree, len(answers)) / n_answers)
        gains = (agreements[0] - agreements[1])[rows]
        return bool(gains.mean() < -_ERRORS_OF_MAJORITY * gains.std() / np.sqrt(len(gains)))

    def _judged(
        self,
        stage: str,
        start: str | None = None,
        transition: Start = None,
        before: Candidate | None = None,
    ) -> Candidate:
        """Train a stage in each fold and judge its predictions by the answers held out there.

        The matrices through which they explain answers come from the answers of other rows: those
        of training belong to the rows that the network has seen.
        """
        candidate = self._try(stage, NamedStart(start, transition), before)
        if self.folds:
            predictions, parts = self._predictions(candidate), self._parts()
            log_likelihood = self.net.group.once(
                lambda: explained_log_likelihood(predictions, self.answers, self.data.weight, parts)
            )
            self._judge_by_checked(log_likelihood, candidate)
            candidate.judge(log_likelihood, self.data.weight)
        return candidate

    @property
    def _true_labels(self) -> np.ndarray | None:
        data = self.data
        return None if data.trusted is None else data.trusted.true_labels(data.target)

    def _judge_by_checked(self, log_likelihood: np.ndarray, candidate: Candidate) -> None:
        """Let rows whose label was checked judge by that label, not by the answers."""
        rows = self.data.rows_trusted
        rows = rows[~np.isnan(log_likelihood[rows])]
        if len(rows):
            labels = self.data.target[rows]
            fit = without_noise(self._predictions(candidate)[rows], labels)
            log_likelihood[rows] = fit.log_likelihood

    def _parts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return rows to estimate matrices from, and rows to judge by, none of them trained on."""
        if self.config.hold_out:
            (fold,) = self.folds
            return [(np.asarray(fold.train), np.asarray(fold.valid))]
        unseen = self.estimator.unseen
        part = stratified_parts(self.data.target[unseen], self.seed + 1)
        halves = unseen[part == 0], unseen[part == 1]
        return [halves, halves[::-1]]

    def _predictions(self, candidate: Candidate) -> np.ndarray:
        """Return what the network of the fold that held a row out predicts of it.

        All classes are as likely where no fold did.
        """
        log_proba = self._predictor(candidate)(np.arange(len(self.data)))
        return np.nan_to_num(log_proba.astype(np.float64), nan=0.0)

    def _estimate(self, log_proba: np.ndarray | None) -> AnnotatorNoise:
        return self.net.group.once(
            lambda: estimate_annotators(
                log_proba,
                self.answers,
                self.data.weight,
                annotator_prior=self.config.annotator_prior,
                answer_power=self.config.answer_power,
                held_out=self.folds[0].valid if self.config.hold_out else None,
                true_label=self._true_labels,
                random_state=self.seed,
            )
        )

    def _finish(self, chosen: Candidate) -> None:
        """Give the net what was chosen, with the matrices that go with a baseline."""
        super()._finish(chosen)
        if chosen.stage == "baseline" and chosen.transition is not None:
            self.stages.attach(chosen.transition)

    def _given_start(self) -> AnnotatorNoise:
        """Return the matrices that the user gave, or the one for all annotators."""
        return self._noise_of(np.asarray(self.config.transition_init))

    def _fitted_start(self) -> AnnotatorNoise:
        """Return the matrices of the last fit; new annotators have their mean."""
        noise = self.net.network.noise
        assert noise is not None
        if not isinstance(noise, AnnotatorTransition):
            return self._noise_of(noise.matrix())
        n_new = self.answers.n_annotators - noise.n_annotators
        new = np.repeat(noise.matrix()[None], n_new, axis=0)
        start = self._noise_of(np.concatenate([noise.transitions(), new]))
        return start._replace(
            annotator_prior=noise.annotator_prior, answer_power=noise.answer_power
        )

    def _noise_of(self, transitions: np.ndarray) -> AnnotatorNoise:
        return AnnotatorNoise.of(
            transitions, self.answers, self.config.annotator_prior, self.config.answer_power
        )

    def _matrix(self, start: Start) -> np.ndarray:
        """Return the mean of the matrices of a start, weighted by answers."""
        if isinstance(start, AnnotatorNoise):
            return mean_transition(start.transitions, self.answers)
        return super()._matrix(start)


class AnnotatorStream:
    """What is kept of the annotators from one chunk of a stream to the next.

    Attributes
    ----------
    counts : ndarray of shape (n_annotators, true, observed) or None
        Soft counts of all rows since the matrices started.
    """

    def __init__(self) -> None:
        self.block: list[tuple[np.ndarray, Answers, np.ndarray]] = []
        self.counts: np.ndarray | None = None

    def learn(
        self, net: SkorchNet, data: TrainingData, config: TrainingConfig, seed: int
    ) -> np.ndarray | None:
        """Take the answers of a chunk into account in the matrices of the annotators.

        They start as `first` finds them, and are then those of soft counts of all chunks so far.
        Annotators who come later start with the matrix of all together.

        Returns
        -------
        ndarray of shape (true, observed) or None
            Mean of the matrices, if the noise layer starts with this chunk.
        """
        answers, noise = data.answers, net.network.noise
        assert answers is not None
        if not isinstance(noise, AnnotatorTransition):
            first = self.first(net, data, config, seed)
            if first is None:
                return None
            transitions, prior, power = first.transitions, first.annotator_prior, first.answer_power
            start = mean_transition(transitions, answers)
        elif not config.learn_transition:
            return None
        else:
            start, prior, power = None, noise.annotator_prior, noise.answer_power
            grown = self._grown_counts(noise, answers)
            table = power * log_answer_table(shrunk_transitions(grown, prior))
            log_proba = net.clean_log_proba(data.dataset()).double().numpy()
            posterior = softmax(log_proba + answers.indicator() @ table, axis=1)
            self.counts = grown + annotator_counts(posterior, answers, data.weight)
            transitions = shrunk_transitions(self.counts, prior)
        net.network.attach_annotator_noise(
            transitions,
            np.asarray(self.counts).sum(axis=(1, 2)),
            annotator_prior=prior,
            answer_power=power,
        )
        return start

    def first(
        self, net: SkorchNet, data: TrainingData, config: TrainingConfig, seed: int
    ) -> AnnotatorNoise | None:
        """Return the matrices to start from, or None while there are too few rows for them.

        The rows of a chunk are predicted before they are learned, so they are held-out rows.
        """
        answers, n_classes = data.answers, data.n_classes
        assert answers is not None
        prior, power = config.annotator_prior, config.answer_power
        log_proba = np.zeros((len(data), n_classes))  # all classes are as likely
        if len(net.history):
            log_proba = net.clean_log_proba(data.dataset()).double().numpy()
        if not isinstance(config.transition_init, str):
            given = AnnotatorNoise.of(config.transition_init, answers, prior, power)
            table = given.answer_power * log_answer_table(given.transitions)
            posterior = softmax(log_proba + answers.indicator() @ table, axis=1)
            self.counts = annotator_counts(posterior, answers, data.weight)
            return given
        weight = np.ones(len(data)) if data.weight is None else data.weight
        self.block = [*self.block, (log_proba, answers, weight)]
        n_rows = sum(len(part) for part, _, _ in self.block)
        if n_rows < max(_ROWS_OF_A_BLOCK, _ROWS_OF_A_BLOCK_PER_CLASS * n_classes):
            return None
        log_proba, weight = (np.concatenate([part[at] for part in self.block]) for at in (0, 2))
        answers = Answers.joined([part[1] for part in self.block])
        self.block = []
        start = net.group.once(
            lambda: estimate_annotators(
                log_proba,
                answers,
                weight,
                annotator_prior=prior,
                answer_power=power,
                random_state=seed,
            )
        )
        self.counts = annotator_counts(start.posterior, answers, weight)
        return start

    def _grown_counts(self, noise: AnnotatorTransition, answers: Answers) -> np.ndarray:
        """Return the counts so far, with zeros for annotators who are new."""
        counts = self.counts
        if counts is None:  # of the rows of fit
            n_answers = noise.n_answers.cpu().double().numpy()
            counts = noise.transitions() * (n_answers / noise.n_classes)[:, None, None]
        grown = np.zeros((answers.n_annotators, *counts.shape[1:]))
        grown[: len(counts)] = counts
        return grown
