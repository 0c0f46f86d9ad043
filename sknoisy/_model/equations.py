"""The equations of the noise adaptation layer, as pure functions on tensors.

They stand in the order of the paper [1]_. Shapes name their axes: ``true`` and
``observed`` run over the classes, rows of a transition matrix are true classes and
columns are observed ones. Everything stays in log space.

============================  ==========================  ======================
paper                         here                        shape
============================  ==========================  ======================
p(y=i | x; w)                 ``clean_log_proba``         (n, true)
p(z=j | y=i)                  ``log_transition``          (true, observed)
p(z=j | y=i, x)               ``log_transition``          (n, true, observed)
p(z=j | x)                    ``noisy_log_proba``         (n, observed)
p(z_t | y=i, x_t)             ``label_log_likelihood``    (n, true)
c_ti                          ``label_posterior``         (n, true)
L(w, theta)                   ``noisy_log_likelihood``    (n,), one term a row
============================  ==========================  ======================

The update of the matrix, theta_ij, is `sknoisy._transition.counts.expected_transition`.

References
----------
.. [1] J. Goldberger and E. Ben-Reuven, "Training deep neural-networks using a noise
   adaptation layer", ICLR 2017.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_SHORT_ROW = 16


def _log_softmax(values: Tensor) -> Tensor:
    """Log-softmax of the rows of a matrix.

    torch's kernel uses vector instructions along long rows and across columns, but not along
    short rows: those are four times faster turned by 90 degrees.
    """
    if values.shape[-1] >= _SHORT_ROW:
        return functional.log_softmax(values, dim=-1)
    return functional.log_softmax(values.mT, dim=-2).mT


def clean_log_proba(logits: Tensor) -> Tensor:
    """Class probabilities of the softmax layer, ``p(y=i | x) = softmax_i(u_i . h + b_i)``.

    Parameters
    ----------
    logits : Tensor of shape (n, true)
        The linear part ``u_i . h(x) + b_i``.

    Returns
    -------
    Tensor of shape (n, true)
        Logarithms of probabilities, rows sum to one in probability.
    """
    return _log_softmax(logits)


def class_log_transition(bias: Tensor) -> Tensor:
    """Transition probabilities of the s-model, ``p(z=j | y=i) = softmax_j(b_ij)``.

    Parameters
    ----------
    bias : Tensor of shape (true, observed)

    Returns
    -------
    Tensor of shape (true, observed)
    """
    return functional.log_softmax(bias, dim=-1)


def feature_log_transition(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Transition probabilities of the c-model, ``p(z=j | y=i, x) = softmax_j(u_ij . h + b_ij)``.

    Parameters
    ----------
    hidden : Tensor of shape (n, n_hidden)
        The last hidden layer h(x).
    weight : Tensor of shape (true, observed, n_hidden)
    bias : Tensor of shape (true, observed)

    Returns
    -------
    Tensor of shape (n, true, observed)
    """
    # The rows of the batch lie along the last axis in memory, where the softmax is fastest.
    logits = torch.addmm(bias.reshape(-1, 1), weight.flatten(0, 1), hidden.T)
    return functional.log_softmax(logits.unflatten(0, bias.shape), dim=1).permute(2, 0, 1)


def noisy_log_proba(clean_log_proba: Tensor, log_transition: Tensor) -> Tensor:
    """Probabilities of the observed label, ``p(z=j | x) = sum_i p(z=j | y=i) p(y=i | x)``.

    Parameters
    ----------
    clean_log_proba : Tensor of shape (n, true)
    log_transition : Tensor of shape (true, observed) or (n, true, observed)

    Returns
    -------
    Tensor of shape (n, observed)
    """
    return torch.logsumexp(clean_log_proba.unsqueeze(-1) + log_transition, dim=-2)


def label_log_likelihood(log_transition: Tensor, target: Tensor) -> Tensor:
    """Probability of the label that was observed given each true label, ``p(z_t | y=i)``.

    The column of the transition matrix that belongs to the observed label.

    Parameters
    ----------
    log_transition : Tensor of shape (true, observed) or (n, true, observed)
    target : Tensor of shape (n,) or (n, true)
        Observed labels as column indices. Of shape (n, true) when each true class has columns
        of its own, as in a sparse noise layer.

    Returns
    -------
    Tensor of shape (n, true)
    """
    if log_transition.ndim == 2 and len(log_transition) < _SHORT_ROW:
        return log_transition.index_select(1, target).mT
    if log_transition.ndim == 2:
        return functional.embedding(target, log_transition.T)
    index = target.view(len(target), -1, 1).expand(-1, log_transition.shape[1], 1)
    return log_transition.gather(2, index).squeeze(2)


def given_true_label(log_likelihood: Tensor, true_label: Tensor) -> Tensor:
    """Probability of what was observed of a row together with its true label, where it is known.

    That of all other classes is zero: the row then counts as ``log p(y_t | x_t)``, with
    ``log p(z_t | y_t)`` of an observed label beside it (D. Hendrycks et al., "Using trusted data to
    train deep networks on labels corrupted by severe noise", NeurIPS 2018, for the first).

    Parameters
    ----------
    log_likelihood : Tensor of shape (n, true)
        From `label_log_likelihood`.
    true_label : Tensor of shape (n,)
        Class of each row, -1 where it is not known.

    Returns
    -------
    Tensor of shape (n, true)
    """
    classes = torch.arange(log_likelihood.shape[1], device=log_likelihood.device)
    known = true_label.unsqueeze(1)
    return log_likelihood.masked_fill((known >= 0) & (known != classes), -torch.inf)


def noisy_log_likelihood(log_joint: Tensor) -> Tensor:
    """Log-likelihood of the observed labels, ``log sum_i p(z_t | y=i, x_t) p(y=i | x_t)``.

    Parameters
    ----------
    log_joint : Tensor of shape (n, true)
        ``log p(y=i, z_t | x_t)``: clean log-probabilities plus `label_log_likelihood`.

    Returns
    -------
    Tensor of shape (n,)
        One term a row; their sum is L(w, theta).
    """
    return torch.logsumexp(log_joint, dim=-1)


def label_posterior(log_joint: Tensor) -> Tensor:
    """Posterior of the true label given features and observed label, c_ti (the E-step).

    ``c_ti = p(y=i | x_t) p(z_t | y=i) / sum_k p(y=k | x_t) p(z_t | y=k)``

    Parameters
    ----------
    log_joint : Tensor of shape (n, true)
        ``log p(y=i, z_t | x_t)``: clean log-probabilities plus `label_log_likelihood`.

    Returns
    -------
    Tensor of shape (n, true)
        Probabilities, rows sum to one.
    """
    return functional.softmax(log_joint, dim=-1)


def posterior_and_evidence(log_joint: Tensor, *, possible: bool = True) -> tuple[Tensor, Tensor]:
    """Split ``p(y=i, z_t | x_t)`` into the posterior c_ti and the likelihood of the label.

    They are all that the gradient needs: the derivative of ``log p(z_t | x_t)`` with respect to
    ``log p(y=i | x_t)``, and to ``log p(z_t | y=i)``, is c_ti.

    Parameters
    ----------
    log_joint : Tensor of shape (n, true)
        ``log p(y=i, z_t | x_t)``.
    possible : bool, default=True
        Whether no probability is zero, as with `given_true_label`; it saves a pass.

    Returns
    -------
    posterior : Tensor of shape (n, true)
        Probabilities, rows sum to one.
    log_likelihood : Tensor of shape (n,)
    """
    log_posterior = _log_softmax(log_joint)
    if not possible:
        return log_posterior.exp(), noisy_log_likelihood(log_joint)
    return log_posterior.exp(), log_joint[:, 0] - log_posterior[:, 0]


def softmax_gradient(log_proba: Tensor, gradient: Tensor) -> Tensor:
    """Turn a gradient with respect to the logarithm of a softmax into one of its logits.

    ``g_i - p_i sum_k g_k``. With the posterior as g it is ``c_ti - p(y=i | x_t)``: the network
    learns until it predicts what the labels say.

    Parameters
    ----------
    log_proba : Tensor of shape (..., n)
    gradient : Tensor of shape (..., n)
        With respect to `log_proba`.

    Returns
    -------
    Tensor of shape (..., n)
    """
    return torch.addcmul(gradient, log_proba.exp(), gradient.sum(-1, keepdim=True), value=-1)


def class_transition_gradient(responsibility: Tensor, target: Tensor, prior: Tensor) -> Tensor:
    """Gradient of a sum over the rows with respect to ``log p(z=j | y=i)`` of the s-model.

    ``sum_t c_ti 1{z_t=j}``: the share of row t goes into the column of its label.

    Parameters
    ----------
    responsibility : Tensor of shape (n, true)
        The posterior c_ti times what row t counts in the sum.
    target : Tensor of shape (n,)
        Observed labels as column indices.
    prior : Tensor of shape (true, observed)
        Labels that count in addition, as evidence for the start.

    Returns
    -------
    Tensor of shape (true, observed)
    """
    return prior.index_add(1, target, responsibility.mT)


def feature_logit_gradient(
    log_transition: Tensor,
    responsibility: Tensor,
    target: Tensor,
    prior: Tensor,
    weight: Tensor | None = None,
) -> Tensor:
    """Gradient of a sum over the rows with respect to ``u_ij . h + b_ij`` of the c-model.

    ``c_ti (1{z_t=j} - p(z=j | y=i, x_t))`` for each row: what the s-model has, and the gradient of
    the softmax.

    Parameters
    ----------
    log_transition : Tensor of shape (n, true, observed)
    responsibility : Tensor of shape (n, true)
        The posterior c_ti times what row t counts in the sum.
    target : Tensor of shape (n,) or (n, true)
        As for `label_log_likelihood`. A label past the last column, one that a sparse layer leaves
        out, has no part.
    prior : Tensor of shape (true, observed)
        Labels that count in addition, a part of them with each row, as evidence for the start.
    weight : Tensor of shape (n,), default=None
        How often each part counts; `responsibility` has the weight of its row already.

    Returns
    -------
    Tensor of shape (n, true, observed)
    """
    if target.ndim == 2:
        outside = target == log_transition.shape[2]
        responsibility, target = (
            responsibility.masked_fill(outside, 0.0),
            target.masked_fill(outside, 0),
        )
    prior = prior / len(responsibility)
    mass = prior.sum(dim=1)
    if weight is not None:
        mass, prior = mass * weight.unsqueeze(1), prior * weight.view(-1, 1, 1)
    gradient = log_transition.exp().mul_((responsibility + mass).neg_().unsqueeze(2)).add_(prior)
    index = target.view(len(target), -1, 1).expand(-1, responsibility.shape[1], 1)
    return gradient.scatter_add_(2, index, responsibility.unsqueeze(2))


def floor_transition(transition: Tensor, smallest: float) -> Tensor:
    """Raise every entry to at least `smallest` and normalise the rows.

    Parameters
    ----------
    transition : Tensor of shape (..., true, observed)
    smallest : float

    Returns
    -------
    Tensor of shape (..., true, observed)
        Rows sum to one.
    """
    transition = transition.clamp_min(smallest)
    return transition / transition.sum(dim=-1, keepdim=True)


def expected_log_transition(log_transition: Tensor, counts: Tensor) -> Tensor:
    """Log-likelihood of labels that were observed so often, ``sum_ij n_ij log p(z=j | y=i)``.

    Parameters
    ----------
    log_transition : Tensor of shape (true, observed) or (n, true, observed)
    counts : Tensor of shape (true, observed)

    Returns
    -------
    Tensor of shape () or (n,)
    """
    return log_transition.flatten(-2) @ counts.flatten()


def transition_log_prior(log_transition: Tensor, start: Tensor) -> Tensor:
    """Log density of a Dirichlet prior around the start, ``mean_i sum_j T0_ij log T_ij``.

    The evidence of one label for each true class, distributed as in the start.

    Parameters
    ----------
    log_transition : Tensor of shape (true, observed) or (n, true, observed)
    start : Tensor of shape (true, observed)
        The matrix T0 that the noise layer started from.

    Returns
    -------
    Tensor of shape () or (n,)
        Largest where the transition equals the start.
    """
    return expected_log_transition(log_transition, start) / start.shape[0]


def log_volume(transition: Tensor) -> Tensor:
    """Logarithm of the volume that the rows of the matrix span, ``log |det T|``.

    Among all matrices that explain the labels, the one of least volume leaves the clean
    probabilities the sharpest; the identity, which assumes all labels correct, has the largest
    (X. Li et al., "Provably end-to-end label-noise learning without anchor points", ICML 2021).

    Parameters
    ----------
    transition : Tensor of shape (true, observed) or (n, true, observed)
        Probabilities.

    Returns
    -------
    Tensor of shape () or (n,)
        Not below ``true * log(0.01)``, where the matrix is singular for all purposes: there the
        value is constant and its gradient zero, else it would tear the matrix apart.
    """
    smallest = transition.shape[-1] * math.log(0.01)
    regular = torch.linalg.slogdet(transition.detach()).logabsdet > smallest
    # The gradient at a singular matrix is NaN, also times zero: it must not be computed at all.
    identity = torch.eye(transition.shape[-1], dtype=transition.dtype, device=transition.device)
    invertible = torch.where(regular[..., None, None], transition, identity)
    return torch.linalg.slogdet(invertible).logabsdet.where(
        regular, transition.new_tensor(smallest)
    )
