"""Training where some labels were checked: they name the classes and count the noise."""

from __future__ import annotations

from functools import partial

import numpy as np

from sknoisy._data.trusted import UNKNOWN
from sknoisy._stages.folds import FEWEST_ROWS, Fold, held_out_with_checked
from sknoisy._stages.selection import Candidate, NamedStart, select_noise_model, select_start
from sknoisy._training.noise_estimates import MANY_CLASSES
from sknoisy._training.trainer import Trainer
from sknoisy._transition.counts import expected_transition
from sknoisy._transition.trusted import (
    and_supposed,
    contradict,
    explained_counts,
    named_by_counts,
    trusted_start,
)

#: Checked rows for each of the others, where they are trained on more often.
_SHARES_OF_CHECKED = (0.1, 0.5)

#: Standard errors by which checked labels must be predicted otherwise than observed ones.
_ERRORS_OF_NOISE = 3.0


class TrustedTrainer(Trainer):
    """Train a net on observed labels through a noise layer, and on checked ones without.

    The baseline learns the observed labels alone, so that it has seen no checked label. What it
    predicts of rows whose label was checked is counted for each true class (gold loss correction
    [1]_); the counts are a start of the noise layer, and name the classes of the others.
    All are judged by rows that were held out, the checked ones among them by their true label, and
    so is a network trained on the checked rows only.

    Parameters
    ----------
    net, data, config, rng, progress
        As for `Trainer`, with data of which some labels were checked.

    References
    ----------
    .. [1] D. Hendrycks, M. Mazeika, D. Wilson and K. Gimpel, "Using trusted data to train deep
       networks on labels corrupted by severe noise", NeurIPS 2018.
    """

    _last_fold: Fold | None = None

    def _select(self) -> Candidate:
        """Train plainly, and with noise layers, and return what explains unseen labels best."""
        if len(self.data) - len(self.data.rows_trusted) < FEWEST_ROWS:
            return self._plain([])
        observed = self._try("observed")
        starts = self._starts(observed) if self.folds else []
        if not starts:
            return self._plain([])
        before = observed if self._keeps_baseline(observed) else None
        tried = self._compete(self._ahead(observed, before, starts), before)
        tried += self._tried_heavier(select_start(tried, cautious=True))
        best = select_start(tried, cautious=True)
        others = self._tried_c(best) if self._tries_c else []
        only = self._trusted_only(best)
        self.candidates = [observed, *tried, *others, *([] if only is best else [only])]
        best = self._by_checks(self._with_noise(observed, [best, *others]), only)
        return self._plain(self.candidates) if best is observed else best

    def _with_noise(self, observed: Candidate, noisy: list[Candidate]) -> Candidate:
        """Return the best network with a noise model, unless plain training is as good.

        Where observed labels are clearly wrong, the noise model need not be clearly better.
        """
        if not self.config.select_noise_model:
            return select_noise_model(noisy)
        if not self._labels_are_wrong(observed):
            if select_noise_model([observed, *noisy]) is observed:
                return observed
            longer = self._trained_longer(observed)
            best = select_noise_model([longer, *noisy])
            return observed if best is longer else best
        return self._by_checks(observed, select_noise_model(noisy))

    def _by_checks(self, best: Candidate, other: Candidate) -> Candidate:
        """Return the better of two networks.

        Checked rows speak of true labels, whatever the noise depends on, so they come first; where
        they are too few to tell, all held-out rows do.
        """
        gain, error = other.gain(best, among=self.data.rows_trusted)
        if abs(gain) <= error:
            gain, _ = other.gain(best)
        return other if gain > 0 else best

    def _make_folds(self) -> list[Fold]:
        """Return the ways to hold rows out, with more of the checked ones where they are few."""
        if not self.config.hold_out or not self.config.learn_transition:
            return super()._make_folds()
        return [held_out_with_checked(self.data, self.config.validation_fraction, self.seed)]

    def _finish(self, chosen: Candidate) -> None:
        """Give the net what was chosen, trained once more with the checked rows that judged it."""
        if self.config.hold_out and self.config.learn_transition:
            (fold,) = self.folds
            train, valid = np.asarray(fold.train), np.asarray(fold.valid)
            checked = valid[np.isin(valid, self.data.rows_trusted)]
            if 0 < len(checked) < len(valid):
                all_checked = Fold(np.union1d(train, checked), np.setdiff1d(valid, checked))
                self.stages.watch(all_checked)
                self._train_chain(chosen, all_checked)
                self._last_fold = all_checked
                chosen.states[0] = self.stages.state()
        super()._finish(chosen)

    @property
    def last_fold(self) -> Fold:
        """The rows on which the network that is kept was trained, where some were held out."""
        return self.folds[0] if self._last_fold is None else self._last_fold

    def _plain(self, candidates: list[Candidate]) -> Candidate:
        """Return a network trained on all labels as if none were wrong."""
        plain = self._try("baseline")
        self.candidates = [plain, *candidates] if self.folds else []
        return plain

    def _trusted_only(self, best: Candidate) -> Candidate:
        """Train on checked rows only, and explain other labels through a matrix found before.

        Where a fold has none of them to train on, nothing else than before is returned.
        """
        if not all(len(self.stages.checked_rows(fold)) for fold in self.folds):
            return best
        self.stages.restore(best.states[0])
        noise = self.net.network.noise
        assert noise is not None
        return self._try("trusted", NamedStart("trusted_only", noise.matrix()))

    def _tried_heavier(self, best: Candidate) -> list[Candidate]:
        """Train with few checked rows more often than others, as long as that helps.

        Where two classes have all but the same noise, checked rows alone tell them apart.
        """
        tried: list[Candidate] = []
        n_checked, n_rows = len(self.data.rows_trusted), len(self.data)
        for share in _SHARES_OF_CHECKED:
            weight = round(share * (n_rows - n_checked) / n_checked)
            if weight < 2:
                continue
            heavier = self._candidate(best.stage, best.named_start, best.before)
            heavier.trusted_weight = weight
            tried += self._tried_against(best, heavier)
            if heavier.gain(best)[0] <= 0:
                break
            best = heavier
        return tried

    def _labels_are_wrong(self, observed: Candidate) -> bool:
        """Whether checked labels are predicted clearly better, or worse, than observed ones.

        By a network that has learned observed labels only, and has seen neither of them. Without
        noise they would be the same.
        """
        data = self.data
        log_proba, seen = self._predictor(observed), self.estimator.unseen
        seen = seen[data.observed[seen] != UNKNOWN]
        checked = data.rows_trusted
        samples = [
            (log_proba(seen), data.observed[seen]),
            (np.log(self._proba_of(observed, checked)), data.target[checked]),
        ]
        mean, variance = zip(
            *[
                (right.mean(), right.var() / len(right))
                for predicted, labels in samples
                for right in [predicted.argmax(axis=1) == labels]
            ],
            strict=True,
        )
        smallest = 1.0 / len(checked) ** 2  # of a sample in which all are right
        error = np.sqrt(sum(variance) + smallest)
        return bool(abs(mean[0] - mean[1]) > _ERRORS_OF_NOISE * error)

    def _starts(self, plain: Candidate) -> list[NamedStart]:
        if not isinstance(self.config.transition_init, str):
            return super()._starts(plain)
        if self.config.counts_confusion:
            return super()._starts(plain)
        counts = self._trusted_counts(plain)
        estimator, predict, group = self.estimator, self._predictor(plain), self.net.group
        matrices = {
            name: named_by_counts(found.transition, counts)
            for name, found in group.lead(estimator.estimates, predict).items()
        }
        best = max(matrices, key=lambda name: explained_counts(matrices[name], counts))
        starts = {name: matrices[name] for name in (next(iter(matrices)), best)}
        counted = and_supposed(counts, matrices[best])
        if self.data.n_classes <= MANY_CLASSES:
            among = counted[np.ix_(estimator.supported, estimator.supported)]
            start = partial(trusted_start, counts=among, random_state=self.seed)
            estimate = partial(estimator.estimate, start)
            starts["trusted"] = group.lead(estimate, predict).transition
        starts["counted"] = expected_transition(counted)
        return [
            NamedStart(name, found)
            for name, found in starts.items()
            if name == "counted" or not contradict(counts, found)
        ]
