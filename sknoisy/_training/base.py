"""What every trainer holds, and how the net gets the network that was chosen."""

from __future__ import annotations

from typing import Any

import numpy as np

from sknoisy._data.training_data import TrainingData
from sknoisy._model.network import copied
from sknoisy._net.net import SkorchNet
from sknoisy._net.progress import FitProgress
from sknoisy._net.summary import summarise
from sknoisy._stages.averaging import averaged
from sknoisy._stages.folds import Fold, cross_folds, held_out_fold
from sknoisy._stages.selection import Candidate, NamedStart, Start
from sknoisy._stages.stages import Stages, TrainingConfig
from sknoisy._support.random import draw_seed
from sknoisy._training.noise_estimates import NoiseEstimator


class BaseTrainer:
    """Hold a net, its data and the candidates, and train once more what was chosen of these.

    Parameters and attributes are those of `Trainer`.
    """

    def __init__(
        self,
        net: SkorchNet,
        data: TrainingData,
        config: TrainingConfig,
        rng: np.random.RandomState,
        progress: FitProgress,
    ) -> None:
        self.net = net
        self.data = data
        self.config = config
        self.seed = draw_seed(rng)
        self.folds = self._make_folds()
        self.stages = Stages(net, data, config, self.folds, self.seed, progress)
        self.initial_transition = np.eye(data.n_classes)
        self.candidates: list[Candidate] = []
        self.left_out: list[NamedStart] = []
        self.chosen: Candidate | None = None
        self.dropout = self._dropout_rates[0]
        self.estimator = NoiseEstimator(data, config, self.folds, self.seed)

    @property
    def was_cross_fitted(self) -> bool:
        """Whether each part is held out in turn, and the last training is on all rows."""
        return not self.config.hold_out

    def report(self) -> list[dict[str, Any]]:
        """Return what a user may want to know of the candidates."""
        return [candidate.report(self.candidates[0]) for candidate in self.candidates]

    @property
    def _dropout_rates(self) -> tuple[float | None, ...]:
        """The shares of dropout to try, in this order, until one explains labels no better.

        Where no rows are held out to judge by, it is the first one.
        """
        rates = self.config.dropout_rates if self.folds else self.config.dropout_rates[:1]
        return rates or (None,)

    @property
    def _joint_stage(self) -> str:
        return "em" if self.config.method == "em" else "s"

    def _finish(self, chosen: Candidate) -> None:
        """Give the net what was chosen: the network of the fold, or one trained on all rows."""
        self.chosen = chosen
        if self.config.hold_out:
            self.stages.restore(chosen.states[0])
            self.stages.set_dropout(chosen)
        else:
            self._train_on_all_rows(chosen)
        if self.config.n_networks > 1:
            self._average_with_others(chosen)
        of_interest = *chosen.chain, *self.candidates
        tried = [c.transition for c in of_interest if c.transition is not None]
        self.initial_transition = self._matrix(tried[0]) if tried else self.initial_transition

    def _average_with_others(self, chosen: Candidate) -> None:
        """Train more networks like the one that was chosen, and go on with the average of all."""
        networks = [copied(self.net.network)]
        seeds = np.random.RandomState(self.seed).randint(2**31 - 1, size=self.config.n_networks)
        for seed in seeds[1:]:
            self.stages.draw_new_weights(int(seed))
            if self.config.hold_out:
                self._train_chain(chosen, self.last_fold)
            else:
                self._train_on_all_rows(chosen)
            networks.append(copied(self.net.network))
        self.net.replace_network(averaged(networks))

    @property
    def last_fold(self) -> Fold:
        """The rows on which the network that is kept was trained, where some were held out."""
        return self.folds[0]

    def _train_chain(self, chosen: Candidate, fold: Fold) -> None:
        """Train one network from its beginning through all stages of a candidate."""
        self.stages.start_over()
        for part in chosen.chain:
            self.stages.train(part, fold)

    def _train_on_all_rows(self, chosen: Candidate) -> None:
        self.stages.start_over()
        for part in chosen.chain:
            self.stages.train(part, Fold(None, None), max_epochs=self._epochs(part))

    def _epochs(self, candidate: Candidate) -> int:
        """Return how often to go over all rows, from the best epochs on parts of them."""
        most = self.config.max_em_iter if candidate.stage == "em" else self.config.max_epochs
        if not candidate.epochs or not self.config.stop_by_folds:
            return most
        # The same number of steps would be the share of the rows, the same number of passes one;
        # in between both fail least (``examples/study/study_harm.py``).
        share = np.mean([len(np.asarray(fold.train)) for fold in self.folds]) / len(self.data)
        return int(np.clip(round(np.sqrt(share) * np.mean(candidate.epochs)), 1, most))

    def _go_on(self) -> None:
        """Train the last stage once more, of a network that has a noise layer."""
        noise_model = self.net.network.noise_model
        wanted = noise_model if self.config.noise_model == "auto" else self.config.noise_model
        self.initial_transition = summarise(self.net, self.data)[1]
        fold = self.folds[0] if self.config.hold_out else Fold(None, None)
        stages = [self._joint_stage] if "s" in (noise_model, wanted) else []
        stages += ["c"] if wanted == "c" else []
        for stage in stages:
            self.chosen = Candidate(stage, "array", self._fitted_start())
            self.stages.train(self.chosen, fold)

    def _make_folds(self) -> list[Fold]:
        """Return the ways to hold rows out: one, each part in turn, or none."""
        config = self.config
        if config.hold_out:
            return [held_out_fold(self.data, config.validation_fraction, self.seed)]
        chooses = config.noise_model is not None and config.learn_transition
        chooses |= len(config.dropout_rates) > 1
        return cross_folds(self.data, self.seed) if chooses or config.stop_by_folds else []

    def _fitted_start(self) -> Start:
        """Return what the last fit ended with."""
        return self.initial_transition

    def _matrix(self, start: Start) -> np.ndarray:
        """Return the one matrix (true, observed) of a start."""
        return np.asarray(start)
