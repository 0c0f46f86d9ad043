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
c_ti                          ``label_posterior``         (n, true)
theta_ij, update of b_ij      ``expected_transition``     (true, observed)
L(w, theta)                   ``noisy_log_likelihood``    (n,), one term a row
============================  ==========================  ======================

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

#: No transition probability is started, fixed or updated below this one: a logarithm of
#: zero has no gradient and an observed label of probability zero has no likelihood.
SMALLEST_PROBABILITY = 1e-8


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
    return functional.log_softmax(logits, dim=-1)


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
    logits = functional.linear(hidden, weight.flatten(0, 1), bias.flatten())
    return functional.log_softmax(logits.unflatten(-1, bias.shape), dim=-1)


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


def observed_log_joint(clean_log_proba: Tensor, log_transition: Tensor, target: Tensor) -> Tensor:
    """Joint probability of each true label with the label that was observed.

    ``p(y=i, z=z_t | x_t) = p(y=i | x_t) p(z_t | y=i)``: the column of the transition
    matrix that belongs to the observed label, without building the other columns.

    Parameters
    ----------
    clean_log_proba : Tensor of shape (n, true)
    log_transition : Tensor of shape (true, observed) or (n, true, observed)
    target : Tensor of shape (n,)
        Observed labels as column indices.

    Returns
    -------
    Tensor of shape (n, true)
    """
    return clean_log_proba + observed_log_column(log_transition, target)


def observed_log_column(log_transition: Tensor, target: Tensor) -> Tensor:
    """Probability of the label that was observed given each true label, ``p(z_t | y=i)``.

    Parameters
    ----------
    log_transition : Tensor of shape (true, observed) or (n, true, observed)
    target : Tensor of shape (n,)
        Observed labels as column indices.

    Returns
    -------
    Tensor of shape (n, true)
    """
    if log_transition.ndim == 2:
        return functional.embedding(target, log_transition.T)
    index = target.view(-1, 1, 1).expand(-1, log_transition.shape[1], 1)
    return log_transition.gather(2, index).squeeze(2)


def noisy_log_likelihood(
    clean_log_proba: Tensor, log_transition: Tensor | None, target: Tensor
) -> Tensor:
    """Log-likelihood of the observed labels, ``log sum_i p(z_t | y=i, x_t) p(y=i | x_t)``.

    Parameters
    ----------
    clean_log_proba : Tensor of shape (n, true)
    log_transition : Tensor of shape (true, observed) or (n, true, observed), or None
        None stands for labels without noise, the identity.
    target : Tensor of shape (n,)
        Observed labels as column indices.

    Returns
    -------
    Tensor of shape (n,)
        One term a row; their sum is L(w, theta).
    """
    if log_transition is None:
        return clean_log_proba.gather(1, target.unsqueeze(1)).squeeze(1)
    return torch.logsumexp(observed_log_joint(clean_log_proba, log_transition, target), dim=-1)


def label_posterior(clean_log_proba: Tensor, log_transition: Tensor, target: Tensor) -> Tensor:
    """Posterior of the true label given features and observed label, c_ti (the E-step).

    ``c_ti = p(y=i | x_t) p(z_t | y=i) / sum_k p(y=k | x_t) p(z_t | y=k)``

    Parameters
    ----------
    clean_log_proba : Tensor of shape (n, true)
    log_transition : Tensor of shape (true, observed) or (n, true, observed)
    target : Tensor of shape (n,)
        Observed labels as column indices.

    Returns
    -------
    Tensor of shape (n, true)
        Probabilities, rows sum to one.
    """
    return functional.softmax(observed_log_joint(clean_log_proba, log_transition, target), dim=-1)


def soft_target_log_likelihood(clean_log_proba: Tensor, posterior: Tensor) -> Tensor:
    """Log-likelihood expected by the posterior, ``sum_i c_ti log p(y=i | x_t)``.

    What the M-step for the network's weights w maximises.

    Parameters
    ----------
    clean_log_proba : Tensor of shape (n, true)
    posterior : Tensor of shape (n, true)
        Soft targets c_ti, probabilities.

    Returns
    -------
    Tensor of shape (n,)
    """
    return (posterior * clean_log_proba).sum(dim=-1)


def soft_counts(
    proba: Tensor, target: Tensor, n_observed: int, weight: Tensor | None = None
) -> Tensor:
    """Soft confusion counts, ``sum_t p_ti 1{z_t = j}``.

    Parameters
    ----------
    proba : Tensor of shape (n, true)
        Probabilities of the true label: p(y=i | x_t), posteriors c_ti, or one-hot rows.
    target : Tensor of shape (n,)
        Observed labels as column indices.
    n_observed : int
        Number of observed classes, the columns of the result.
    weight : Tensor of shape (n,), default=None
        Sample weights; None weighs every row one.

    Returns
    -------
    Tensor of shape (true, observed)
        In double precision: counts of many rows do not fit into a float32 mantissa.
    """
    proba = proba.double()
    if weight is not None:
        proba = proba * weight.double().unsqueeze(1)
    counts = proba.new_zeros(n_observed, proba.shape[1])
    return counts.index_add_(0, target, proba).T


def expected_transition(counts: Tensor, *, smallest: float = SMALLEST_PROBABILITY) -> Tensor:
    """Transition matrix from soft counts, ``theta_ij = sum_t c_ti 1{z_t=j} / sum_t c_ti``.

    The closed form of the M-step when the counts come from posteriors, and the paper's start
    ``exp(b_ij)`` when they come from the clean probabilities.

    Parameters
    ----------
    counts : Tensor of shape (true, observed)
        From `soft_counts`.
    smallest : float, default=1e-8
        Entries are raised to at least this probability and the rows normalised again.

    Returns
    -------
    Tensor of shape (true, observed)
        Rows sum to one. A true class without any count keeps its label: its row is that of
        the identity.
    """
    identity = torch.eye(*counts.shape, dtype=counts.dtype, device=counts.device)
    mass = counts.sum(dim=1, keepdim=True)
    empty = mass <= torch.finfo(counts.dtype).tiny
    transition = torch.where(empty, identity, counts / torch.where(empty, 1.0, mass))
    return floor_transition(transition, smallest)


def floor_transition(transition: Tensor, smallest: float = SMALLEST_PROBABILITY) -> Tensor:
    """Raise every entry to at least `smallest` and normalise the rows.

    Parameters
    ----------
    transition : Tensor of shape (..., true, observed)
    smallest : float, default=1e-8

    Returns
    -------
    Tensor of shape (..., true, observed)
        Rows sum to one.
    """
    transition = transition.clamp_min(smallest)
    return transition / transition.sum(dim=-1, keepdim=True)


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
    return (start * log_transition).sum(dim=-1).mean(dim=-1)


def log_volume(log_transition: Tensor) -> Tensor:
    """Logarithm of the volume that the rows of the matrix span, ``log |det T|``.

    Among all matrices that explain the labels, the one of least volume leaves the clean
    probabilities the sharpest; the identity, which takes all labels for true, has the largest
    (X. Li et al., "Provably end-to-end label-noise learning without anchor points", ICML 2021).

    Parameters
    ----------
    log_transition : Tensor of shape (true, observed) or (n, true, observed)

    Returns
    -------
    Tensor of shape () or (n,)
        Not below ``true * log(0.01)``, where the matrix is singular for all purposes: there the
        value is constant and its gradient zero, else it would tear the matrix apart.
    """
    transition = log_transition.exp()
    smallest = transition.shape[-1] * math.log(0.01)
    regular = torch.linalg.slogdet(transition.detach()).logabsdet > smallest
    # The gradient at a singular matrix is NaN, also times zero: it must not be computed at all.
    identity = torch.eye(transition.shape[-1], dtype=transition.dtype, device=transition.device)
    invertible = torch.where(regular[..., None, None], transition, identity)
    return torch.linalg.slogdet(invertible).logabsdet.where(
        regular, transition.new_tensor(smallest)
    )
