"""The noise layer of several answers a row: a transition matrix for each annotator."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sknoisy._crowd.annotators import log_answer_table, shrunk_transitions
from sknoisy._model.noise_layers import LabelFactors, Layout, Linearization, NoiseLayer


class AnnotatorTransition(NoiseLayer):
    r"""Answers that are independent given the true class, with a matrix for each annotator.

    .. math:: p(z_1, \ldots, z_m \mid y=i) = \prod_a (T^a_{i z_a})^\gamma

    The matrices are no weights of the network: `maximise` replaces them by the likeliest ones. The
    labels of a batch are codes, ``annotator * n_classes + label``, an integer tensor of shape
    (n, m); where a row has fewer than m answers, ``n_annotators * n_classes`` stands.

    Parameters
    ----------
    transitions : ndarray of shape (n_annotators, true, observed)
        Where the layer starts; rows sum to one, entries are positive.
    n_answers : ndarray of shape (n_annotators,)
        How many answers each annotator gave; their shares are the weights of the mean matrix.
    annotator_prior : float
        How many answers of each true class the matrix of all annotators is worth in the estimate
        of that of each of them.
    answer_power : float
        The exponent gamma.

    Attributes
    ----------
    log_column : Tensor of shape (n_annotators * observed + 1, true)
        Logarithms of the columns of all matrices; zeros in the last row, for no answer.
    start : Tensor of the same shape
        What `log_column` was at first.
    n_answers : Tensor of shape (n_annotators,)
        How many answers each annotator gave.
    """

    depends_on_features = False
    log_column: Tensor
    start: Tensor
    n_answers: Tensor

    def __init__(
        self,
        transitions: np.ndarray,
        n_answers: np.ndarray,
        *,
        annotator_prior: float,
        answer_power: float,
    ) -> None:
        super().__init__()
        n_annotators, n_classes, _ = transitions.shape
        self.annotator_prior = float(annotator_prior)
        self.answer_power = float(answer_power)
        self.register_buffer("log_column", torch.empty(n_annotators * n_classes + 1, n_classes))
        self.register_buffer("n_answers", torch.as_tensor(n_answers, dtype=torch.float32))
        self.reset_transitions(transitions)
        self.register_buffer("start", self.log_column.clone())

    @torch.no_grad()
    def reset_transitions(self, transitions: np.ndarray) -> None:
        """Replace the matrices, an array of shape (n_annotators, true, observed)."""
        table = torch.from_numpy(log_answer_table(transitions))
        self.log_column[:-1] = table.to(self.log_column)
        self.log_column[-1] = 0.0

    @property
    def n_annotators(self) -> int:
        """Number of annotators."""
        return len(self.n_answers)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.log_column.shape[1]

    def with_others(self) -> AnnotatorTransition:
        """Return a layer with one more annotator, who has the mean of the matrices."""
        transitions = np.concatenate([self.transitions(), self.matrix()[None]])
        n_answers = np.append(self.n_answers.cpu().double().numpy(), 0.0)
        layer = AnnotatorTransition(
            transitions,
            n_answers,
            annotator_prior=self.annotator_prior,
            answer_power=self.answer_power,
        )
        return layer.to(self.log_column)

    @torch.no_grad()
    def transitions(self) -> np.ndarray:
        """Return the matrices, an array of shape (n_annotators, true, observed) in float64."""
        columns = self.log_column[:-1].cpu().double().exp()
        columns = columns.unflatten(0, (self.n_annotators, self.n_classes)).mT
        return (columns / columns.sum(dim=2, keepdim=True)).numpy()

    def label_log_likelihood(self, labels: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return ``gamma * sum_a log p(z_a | y=i)``, shape (n, true); see `NoiseLayer`."""
        return self.answer_power * functional.embedding_bag(labels, self.log_column, mode="sum")

    def label_factors(
        self, clean_log_proba: Tensor, labels: Tensor, hidden: Tensor | None = None
    ) -> LabelFactors:
        """Return the factors of each answer, without the help of the others; see `NoiseLayer`.

        Through the matrices of the start. Those that were learned since come from the answers of
        the rows of training: through them, held-out answers would become less likely while the
        network gets better.
        """
        answered = labels < self.n_annotators * self.n_classes
        row = answered.nonzero()[:, 0]
        return LabelFactors(clean_log_proba[row], self.start[labels[answered]], row)

    def transition(self, hidden: Tensor | None = None) -> Tensor:
        """Return the mean of the matrices, weighted by answers, shape (true, observed)."""
        columns = self.log_column[:-1].exp().unflatten(0, (self.n_annotators, self.n_classes))
        n_answers = self.n_answers if self.n_answers.any() else torch.ones_like(self.n_answers)
        mean = torch.einsum("a,aji->ij", n_answers, columns)
        return mean / mean.sum(dim=1, keepdim=True)

    def log_prior(
        self, hidden: Tensor | None = None, sample_weight: Tensor | None = None
    ) -> Tensor:
        """Return zero: the prior enters the closed form of the matrices; see `NoiseLayer`."""
        return self.log_column.new_zeros(())

    def linearize(
        self, labels: Tensor, hidden: Tensor, sample_weight: Tensor | None = None
    ) -> Linearization:
        """Return the likelihood; nothing of the layer learns by gradients."""
        return Linearization(
            self.label_log_likelihood(labels), self.log_prior, lambda *derivatives: ([], None)
        )

    def maximise(self, counts: np.ndarray, prior_weight: float) -> None:
        """Replace the matrices by the likeliest ones.

        Parameters
        ----------
        counts : ndarray of shape (n_annotators, true, observed)
            Soft counts of true against observed classes.
        prior_weight : float
            Has no part: the prior is that around the matrix of all annotators.
        """
        self.reset_transitions(shrunk_transitions(counts, self.annotator_prior))

    def layout(self, n_classes: int, n_hidden: int) -> Layout:
        """Return what the tensors of the layer must be; see `NoiseLayer`."""
        n_codes = len(self.n_answers) * n_classes + 1
        return {
            "log_column": ((n_codes, n_classes), None),
            "start": ((n_codes, n_classes), None),
            "n_answers": ((len(self.n_answers),), None),
        }

    def extra_repr(self) -> str:
        """Say how many annotators there are."""
        return (
            f"n_annotators={self.n_annotators}, n_classes={self.n_classes}, "
            f"answer_power={self.answer_power:g}"
        )
