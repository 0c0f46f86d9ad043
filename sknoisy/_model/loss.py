"""The loss of a batch: what each way of training maximises, put together from the equations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sknoisy._model import equations as F
from sknoisy._model.noise_layers import NoiseLayer


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
        posterior: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of a batch, a scalar.

        Parameters
        ----------
        noise : NoiseLayer or None
        clean_log_proba : Tensor of shape (n, true)
        hidden : Tensor of shape (n, n_hidden)
            What a noise layer of the c-model depends on.
        target : Tensor of shape (n,)
            Encoded observed labels.
        sample_weight : Tensor of shape (n,), default=None
        posterior : Tensor of shape (n, true), default=None
            Soft targets; with them it is the M-step of the network, in which the noise layer
            has no part.
        """
        if posterior is not None:
            return -_mean(F.soft_target_log_likelihood(clean_log_proba, posterior), sample_weight)
        if noise is None:
            reduction = "mean" if sample_weight is None else "none"
            losses = functional.nll_loss(clean_log_proba, target, reduction=reduction)
            return _mean(losses, sample_weight)
        log_joint = clean_log_proba + noise.label_log_likelihood(target, hidden)
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
        posterior: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None, list[Tensor]]:
        """Return the loss without the volume, and its derivatives.

        The posterior c_ti is the derivative of ``log p(z_t|x_t)`` with respect to the logarithms
        of both the clean and the transition probabilities. Needs no autograd.

        Parameters
        ----------
        noise, clean_log_proba, hidden, target, sample_weight, posterior
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
        if posterior is not None:
            likelihood = F.soft_target_log_likelihood(clean_log_proba, posterior)
            gradient = _loss_gradient(posterior.clone(), sample_weight)
            return -_mean(likelihood, sample_weight), gradient, None, []
        if noise is None:
            losses = functional.nll_loss(clean_log_proba, target, reduction="none")
            one_hot = torch.zeros_like(clean_log_proba).scatter_(1, target.unsqueeze(1), 1.0)
            return _mean(losses, sample_weight), _loss_gradient(one_hot, sample_weight), None, []
        observed = noise.linearize(target, hidden, sample_weight)
        log_joint = clean_log_proba + observed.log_likelihood
        responsibility, likelihood = F.posterior_and_evidence(log_joint)
        loss = -_mean(likelihood, sample_weight)
        if self.transition_prior:
            loss = loss.sub(observed.log_prior(), alpha=self.transition_prior)
        by_clean = _loss_gradient(responsibility, sample_weight)
        by_parameters, by_hidden = observed.pull_back(by_clean, -self.transition_prior)
        return loss, by_clean, by_hidden, by_parameters


def _loss_gradient(posterior: Tensor, weight: Tensor | None) -> Tensor:
    """Turn posteriors into derivatives of the mean of the negative logarithms, in place."""
    if weight is not None:
        posterior *= weight.unsqueeze(1)
    return posterior.mul_(-1.0 / len(posterior))


def _mean(values: Tensor, weight: Tensor | None) -> Tensor:
    return (values if weight is None else values * weight).mean()
