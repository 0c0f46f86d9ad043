"""The loss of a batch: what each way of training maximises, put together from the equations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sknoisy._model import equations as F
from sknoisy._model.noise_layers import NoiseLayer

_ELEMENTS_AT_ONCE = 2**23


@dataclass
class Objective:
    """Mean negative log-likelihood of the observed labels, with what keeps the matrix in place.

    Parameters
    ----------
    transition_prior : float, default=0.0
        Weight of the start of the noise layer as evidence, as a multiple of the data.
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
        if noise is None and sample_weight is None:
            return functional.nll_loss(clean_log_proba, target)
        if noise is None:
            return -_mean(F.noisy_log_likelihood(clean_log_proba, None, target), sample_weight)
        terms = self._terms
        if _rows_at_once(noise) < len(target):
            terms = self._terms_in_chunks
        likelihood, regularisation = terms(noise, clean_log_proba, hidden, target)
        return _total(likelihood, regularisation, sample_weight)

    def backward(
        self,
        noise: NoiseLayer | None,
        clean_log_proba: Tensor,
        hidden: Tensor,
        target: Tensor,
        **extras: Tensor,
    ) -> Tensor:
        """Add the gradient of `loss` to that of the weights, and return the loss.

        The noise layer's is written down where it can be, which takes half as long as autograd.

        Parameters
        ----------
        noise, clean_log_proba, hidden, target, **extras
            As for `loss`.
        """
        if len(target) > self.most_rows(noise):
            loss = self.loss(noise, clean_log_proba, hidden, target, **extras)
            loss.backward()
            return loss.detach()
        with torch.no_grad():
            loss, share, hidden_gradient = self.derivatives(
                noise, clean_log_proba, hidden, target, **extras
            )
        outputs, gradients = [clean_log_proba], [share]
        if hidden_gradient is not None and hidden.requires_grad:
            outputs.append(hidden)
            gradients.append(hidden_gradient)
        torch.autograd.backward(outputs, gradients)
        return loss

    def most_rows(self, noise: NoiseLayer | None) -> float:
        """Return how many rows `derivatives` takes at once, zero if it cannot take any."""
        if noise is None:
            return math.inf
        if self.volume_penalty or any(has_hooks(weight) for weight in noise.parameters()):
            return 0
        return _rows_at_once(noise)

    def derivatives(
        self,
        noise: NoiseLayer | None,
        clean_log_proba: Tensor,
        hidden: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        posterior: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the loss and its derivatives, and give the noise layer its gradient.

        The posterior c_ti is the derivative of ``log p(z_t|x_t)`` with respect to the logarithms
        of both the clean and the transition probabilities. Needs no autograd.

        Parameters
        ----------
        noise, clean_log_proba, hidden, target, sample_weight, posterior
            As for `loss`.

        Returns
        -------
        loss : Tensor of shape ()
        share : Tensor of shape (n, true)
            Derivative with respect to `clean_log_proba`.
        hidden_gradient : Tensor of shape (n, n_hidden) or None
            Derivative with respect to `hidden` by way of the noise layer.
        """
        if posterior is not None:
            likelihood = F.soft_target_log_likelihood(clean_log_proba, posterior)
            share = _counted(posterior.clone(), sample_weight)
            return -_mean(likelihood, sample_weight), share, None
        if noise is None:
            likelihood = F.noisy_log_likelihood(clean_log_proba, None, target)
            share = torch.zeros_like(clean_log_proba).scatter_(1, target.unsqueeze(1), 1.0)
            return -_mean(likelihood, sample_weight), _counted(share, sample_weight), None
        log_transition = noise(hidden)
        index = noise.index(target)
        joint = F.observed_log_joint(clean_log_proba, log_transition, index)
        share, likelihood = F.posterior_and_evidence(joint)
        share = _counted(share, sample_weight)
        loss = -_mean(likelihood, sample_weight)
        prior = noise.start * (-self.transition_prior / len(noise.start))
        if self.transition_prior:
            loss += _mean(F.expected_log_transition(log_transition, prior), sample_weight)
        hidden_gradient = noise.backward(log_transition, hidden, share, index, prior, sample_weight)
        return loss, share, hidden_gradient

    def _terms(
        self, noise: NoiseLayer, clean_log_proba: Tensor, hidden: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return log-likelihoods and log priors of the rows, or one prior for all of them."""
        log_transition = noise(hidden)
        likelihood = F.noisy_log_likelihood(clean_log_proba, log_transition, noise.index(target))
        regularisation = None
        if self.transition_prior:
            log_prior = F.transition_log_prior(log_transition, noise.start)
            regularisation = self.transition_prior * log_prior
        if self.volume_penalty:
            volume = self.volume_penalty * F.log_volume(noise.dense(log_transition))
            regularisation = -volume if regularisation is None else regularisation - volume
        return likelihood, regularisation

    def _terms_in_chunks(
        self, noise: NoiseLayer, clean_log_proba: Tensor, hidden: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return the terms of a few rows at a time, and compute them again for the gradient.

        The transition matrices of a whole batch of the c-model are never in memory together.
        """
        n_rows = _rows_at_once(noise)
        batches = zip(*(t.split(n_rows) for t in (clean_log_proba, hidden, target)), strict=True)
        terms = [checkpoint(self._terms, noise, *batch, use_reentrant=False) for batch in batches]
        likelihood, regularisation = zip(*terms, strict=True)
        if regularisation[0] is None:
            return torch.cat(likelihood), None
        return torch.cat(likelihood), torch.cat(regularisation)


def _rows_at_once(noise: NoiseLayer) -> float:
    """Return how many rows the layer may take at once."""
    if not noise.elements_per_row:
        return math.inf
    return max(1, _ELEMENTS_AT_ONCE // noise.elements_per_row)


def has_hooks(parameter: Tensor) -> bool:
    """Whether somebody wants to hear of the gradient of a parameter from autograd."""
    return bool(parameter._backward_hooks or parameter._post_accumulate_grad_hooks)


def _counted(posterior: Tensor, weight: Tensor | None) -> Tensor:
    """Turn posteriors into derivatives of the mean of the negative logarithms, in place."""
    if weight is not None:
        posterior *= weight.unsqueeze(1)
    return posterior.mul_(-1.0 / len(posterior))


def _total(likelihood: Tensor, regularisation: Tensor | None, weight: Tensor | None) -> Tensor:
    loss = -_mean(likelihood, weight)
    return loss if regularisation is None else loss - _mean(regularisation, weight)


def _mean(values: Tensor, weight: Tensor | None) -> Tensor:
    if weight is not None:
        return (values * weight).mean()
    return values.mean() if values.ndim else values
