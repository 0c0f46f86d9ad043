"""The loss of a batch: what each way of training maximises, put together from the equations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sknoisy._model import equations as F
from sknoisy._model.noise_layers import LabelFactors, NoiseLayer


@dataclass(frozen=True)
class Objective:
    """Mean negative log-likelihood of the observed labels, with what keeps the matrix in place.

    Parameters
    ----------
    transition_prior : float, default=0.0
        Weight of the prior of the noise layer, as a multiple of the data.
    volume_penalty : float, default=0.0
        Weight of ``log |det T|``.
    """

    transition_prior: float = 0.0
    volume_penalty: float = 0.0

    def loss(
        self,
        noise: NoiseLayer | None,
        clean_log_proba: Tensor,
        hidden: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        true_label: Tensor | None = None,
        observed_label: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of a batch, a scalar.

        Parameters
        ----------
        noise : NoiseLayer or None
        clean_log_proba : Tensor of shape (n, true)
        hidden : Tensor of shape (n, n_hidden)
            What a noise layer of the c-model depends on.
        target : Tensor of shape (n,)
            Encoded labels.
        sample_weight : Tensor of shape (n,), default=None
        true_label : Tensor of shape (n,), default=None
            The true label of rows where it was checked, -1 elsewhere.
        observed_label : Tensor of shape (n,) or (n, m), default=None
            The label, or the answers, that the noise layer explains; -1 where there is none. None
            stands for `target`.
        """
        if noise is None:
            reduction = "mean" if sample_weight is None else "none"
            losses = functional.nll_loss(clean_log_proba, target, reduction=reduction)
            return _mean(losses, sample_weight)
        labels, silent = _split(target, observed_label)
        log_column = noise.label_log_likelihood(labels, hidden)
        log_joint = clean_log_proba + _with_true_labels(log_column, true_label, silent)
        loss = -_mean(F.noisy_log_likelihood(log_joint), sample_weight)
        if self.transition_prior:
            loss = loss - self.transition_prior * noise.log_prior(hidden, sample_weight)
        if self.volume_penalty:
            loss = loss + self.volume_penalty * noise.log_volume(hidden, sample_weight)
        return loss

    def derivatives(
        self,
        noise: NoiseLayer | None,
        clean_log_proba: Tensor,
        hidden: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        true_label: Tensor | None = None,
        observed_label: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None, list[Tensor]]:
        """Return the loss without the volume, and its derivatives.

        The posterior c_ti is the derivative of ``log p(z_t|x_t)`` with respect to the logarithms
        of both the clean and the transition probabilities. Needs no autograd.

        Parameters
        ----------
        noise, clean_log_proba, hidden, target, sample_weight, true_label, observed_label
            As for `loss`.

        Returns
        -------
        loss : Tensor of shape ()
        by_clean : Tensor of shape (n, true)
            Derivative with respect to `clean_log_proba`.
        by_hidden : Tensor of shape (n, n_hidden) or None
            Derivative with respect to `hidden` by way of the noise layer.
        by_parameters : list of Tensor
            Derivatives with respect to what the noise layer learns.
        """
        if noise is None:
            losses = functional.nll_loss(clean_log_proba, target, reduction="none")
            one_hot = torch.zeros_like(clean_log_proba).scatter_(1, target.unsqueeze(1), 1.0)
            return _mean(losses, sample_weight), _loss_gradient(one_hot, sample_weight), None, []
        labels, silent = _split(target, observed_label)
        observed = noise.linearize(labels, hidden, sample_weight)
        log_joint = clean_log_proba + _with_true_labels(observed.log_likelihood, true_label, silent)
        responsibility, likelihood = F.posterior_and_evidence(
            log_joint, possible=true_label is None
        )
        loss = -_mean(likelihood, sample_weight)
        if self.transition_prior:
            loss = loss.sub(observed.log_prior(), alpha=self.transition_prior)
        by_clean = _loss_gradient(responsibility, sample_weight)
        by_label = by_clean if silent is None else by_clean.masked_fill(silent, 0.0)
        by_parameters, by_hidden = observed.pull_back(by_label, -self.transition_prior)
        return loss, by_clean, by_hidden, by_parameters


def log_column(
    noise: NoiseLayer, labels: Tensor, true_label: Tensor | None, hidden: Tensor | None = None
) -> Tensor:
    """Return ``log p(z_t | y=i, x_t)`` of labels of which some may be missing or were checked.

    Parameters
    ----------
    noise : NoiseLayer
    labels : Tensor of shape (n,) or (n, m)
        As the noise layer takes them; -1 where there is none.
    true_label : Tensor of shape (n,) or None
        The true label of rows where it was checked, -1 elsewhere.
    hidden : Tensor of shape (n, n_hidden), default=None

    Returns
    -------
    Tensor of shape (n, true)
    """
    labels, silent = _split(labels, labels)
    return _with_true_labels(noise.label_log_likelihood(labels, hidden), true_label, silent)


def label_factors(
    noise: NoiseLayer | None,
    clean_log_proba: Tensor,
    hidden: Tensor,
    target: Tensor,
    *,
    true_label: Tensor | None = None,
    observed_label: Tensor | None = None,
    **others: Tensor,
) -> LabelFactors:
    """Return what is known of the labels of a batch, one by one.

    Of a row whose label was checked that is the label alone: what was observed before says
    nothing more of the network.

    Parameters
    ----------
    noise, clean_log_proba, hidden, target, true_label, observed_label
        As for `Objective.loss`.
    **others : Tensor
        Have no part.

    Returns
    -------
    LabelFactors
    """
    if noise is None:
        column = F.given_true_label(torch.zeros_like(clean_log_proba), target)
        return LabelFactors.of_rows(clean_log_proba, column)
    labels, _ = _split(target, observed_label)
    factors = noise.label_factors(clean_log_proba, labels, hidden)
    if true_label is None:
        return factors
    checked = (true_label >= 0).nonzero().squeeze(1)
    column = torch.zeros_like(clean_log_proba[checked])
    of_checked = LabelFactors(
        clean_log_proba[checked], F.given_true_label(column, true_label[checked]), checked
    )
    others_at = (true_label[factors.row] < 0).nonzero().squeeze(1)
    both = [
        torch.cat([one[others_at], other]) for one, other in zip(factors, of_checked, strict=True)
    ]
    order = torch.argsort(both[2], stable=True)
    return LabelFactors(*(values[order] for values in both))


def _split(target: Tensor, observed_label: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return labels that a noise layer takes, and which rows of shape (n, 1) have none."""
    if observed_label is None:
        return target, None
    if observed_label.ndim == 2:  # answers, which have a code for none
        return observed_label, None
    return observed_label.clamp_min(0), (observed_label < 0).unsqueeze(1)


def _with_true_labels(
    log_likelihood: Tensor, true_label: Tensor | None, silent: Tensor | None
) -> Tensor:
    if silent is not None:
        log_likelihood = log_likelihood.masked_fill(silent, 0.0)
    if true_label is None:
        return log_likelihood
    return F.given_true_label(log_likelihood, true_label)


def _loss_gradient(posterior: Tensor, weight: Tensor | None) -> Tensor:
    """Turn posteriors into derivatives of the mean of the negative logarithms, in place."""
    if weight is not None:
        posterior *= weight.unsqueeze(1)
    return posterior.mul_(-1.0 / len(posterior))


def _mean(values: Tensor, weight: Tensor | None) -> Tensor:
    return (values if weight is None else values * weight).mean()
