r"""Softmax layers on log-probabilities whose labels are observed through noise.

The discriminative counterpart of `mixture.py`. What a classifier says of the observed labels of
rows that it did not see is mapped to the true label by one linear layer,

.. math:: p(y \mid s) = \mathrm{softmax}(W^\top s + b), \qquad
    \max_{W, b, T} \sum_t \log \sum_i T_{i z_t}\, p(y=i \mid s_t)
    - \frac{\lambda}{2} \lVert W - \beta I \rVert^2 + \log p(T),

which is the noise adaptation layer on top of any classifier. Without noise it is matrix scaling
(C. Guo et al., "On calibration of modern neural networks", ICML 2017) of logarithms, or Dirichlet
calibration (M. Kull et al., "Beyond temperature scaling: obtaining well-calibrated multi-class
probabilities with Dirichlet calibration", NeurIPS 2019); with an infinite penalty only the
sharpness :math:`\beta` is left. A classifier that believes noisy labels gives a row of A that is
often labelled B nearly equal probabilities of both; the layer undoes that wherever it is the same
for all rows of a class.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from sknoisy._support.validation import FloatArray
from sknoisy._transition.counts import soft_counts

_SMALLEST_TRANSITION = 1e-6
_SMALLEST_LIKELIHOOD = 1e-300
_MAX_ITER = 60
#: Where predictions are separable, no sharpness is enough.
_LOG_SHARPNESS = 5.0
_TOLERANCE = 1e-6


class SoftmaxLayer(NamedTuple):
    """A fitted layer.

    Attributes
    ----------
    weight : ndarray of shape (n_scores, true)
    bias : ndarray of shape (true,)
    transition : ndarray of shape (true, observed)
    """

    weight: FloatArray
    bias: FloatArray
    transition: FloatArray

    def clean_log_proba(self, scores: FloatArray) -> FloatArray:
        """Return ``log p(y=i | s_t)``, shape (n_samples, true)."""
        return log_softmax(scores @ self.weight + self.bias, axis=1)


def fit_softmax_layer(
    scores: FloatArray,
    target: np.ndarray,
    start: SoftmaxLayer,
    *,
    penalty: float,
    matrix: str | FloatArray,
    max_iter: int = _MAX_ITER,
) -> SoftmaxLayer:
    """Fit the layer by L-BFGS.

    Parameters
    ----------
    scores : ndarray of shape (n_samples, n_scores)
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    start : SoftmaxLayer
        Where the search starts. Its weights are those that the penalty draws to.
    penalty : float
        The inverse variance of a normal prior of the weights.
    matrix : {"fixed", "uniform"} or ndarray of shape (true, observed)
        "fixed" keeps that of `start`. "uniform" has one parameter, the rate of errors that are
        spread evenly over all other classes. An array holds labels that are added to those of
        each true class, a Dirichlet prior of a free matrix.
    max_iter : int, default=60

    Returns
    -------
    SoftmaxLayer
    """
    n_scores, n_classes = start.weight.shape
    n_weights = n_scores * n_classes
    diagonal = np.eye(n_classes)
    prior = None if isinstance(matrix, str) else matrix
    fixed = isinstance(matrix, str) and matrix == "fixed"

    def unpack(parameters: FloatArray) -> SoftmaxLayer:
        weight = parameters[:n_weights].reshape(n_scores, n_classes)
        bias, rest = np.split(parameters[n_weights:], [n_classes])
        if fixed:
            return SoftmaxLayer(weight, bias, start.transition)
        logits = rest * diagonal if prior is None else rest.reshape(diagonal.shape)
        return SoftmaxLayer(weight, bias, _softmax(logits))

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        weight, bias, transition = unpack(parameters)
        clean = _softmax(scores @ weight + bias)
        posterior = clean * transition.T[target]
        evidence = np.maximum(posterior.sum(axis=1), _SMALLEST_LIKELIHOOD)
        posterior /= evidence[:, None]
        change = weight - start.weight
        value = penalty / 2 * (change**2).sum() - np.log(evidence).sum()
        excess = clean - posterior
        gradient = [(scores.T @ excess + penalty * change).ravel(), excess.sum(axis=0)]
        if not fixed:
            counts = soft_counts(posterior, target, n_classes)
            if prior is not None:
                counts += prior
                value -= (prior * np.log(np.maximum(transition, _SMALLEST_LIKELIHOOD))).sum()
            slope = counts.sum(axis=1, keepdims=True) * transition - counts
            gradient.append(slope.ravel() if prior is not None else [np.trace(slope)])
        return value / len(target), np.concatenate(gradient) / len(target)

    parameters = [start.weight.ravel(), start.bias]
    if prior is not None:
        parameters.append(np.log(np.maximum(start.transition, _SMALLEST_TRANSITION)).ravel())
    elif not fixed:
        rate = np.clip(1.0 - np.diag(start.transition).mean(), 1e-3, 1.0 - 1.05 / n_classes)
        parameters.append(np.log([(1.0 - rate) * (n_classes - 1) / rate]))
    found = minimize(
        loss,
        np.concatenate(parameters),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iter, "ftol": _TOLERANCE},
    )
    return unpack(found.x)


def fit_tied_layer(
    scores: FloatArray,
    target: np.ndarray,
    start: FloatArray,
    *,
    prior: FloatArray,
    max_iter: int = _MAX_ITER,
) -> SoftmaxLayer:
    """Fit a layer whose weights are the transition matrix, by L-BFGS.

    A classifier that believes noisy labels predicts the row ``T_i`` of the matrix for rows of class
    i, so the nearer a prediction ``q_t`` is to that row, the likelier is the class,
    ``p(y=i | q_t) ~ exp(b_i - beta KL(T_i || q_t))``. That is a softmax layer on ``log q_t`` with
    the weights ``beta T^T``. Where the matrix is the identity, it is temperature scaling with a
    bias. The biases have standard normal priors.

    Parameters
    ----------
    scores : ndarray of shape (n_samples, n_classes)
        Logarithms of the predictions.
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    start : ndarray of shape (true, observed)
        The matrix where the search starts.
    prior : ndarray of shape (true, observed)
        Labels that are added to those of each true class.
    max_iter : int, default=60

    Returns
    -------
    SoftmaxLayer
    """
    n_classes = scores.shape[1]
    n_free = n_classes**2

    def unpack(parameters: FloatArray) -> tuple[FloatArray, FloatArray, float]:
        transition = _softmax(parameters[:n_free].reshape(n_classes, n_classes))
        return transition, parameters[n_free:-1], float(np.exp(parameters[-1]))

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        transition, bias, sharpness = unpack(parameters)
        logs = np.log(np.maximum(transition, _SMALLEST_LIKELIHOOD))
        divergence = (transition * logs).sum(axis=1) - scores @ transition.T
        clean = _softmax(bias - sharpness * divergence)
        posterior = clean * transition.T[target]
        evidence = np.maximum(posterior.sum(axis=1), _SMALLEST_LIKELIHOOD)
        posterior /= evidence[:, None]
        value = (bias @ bias) / 2 - np.log(evidence).sum() - (prior * logs).sum()
        excess = clean - posterior
        mass = excess.sum(axis=0)
        counts = soft_counts(posterior, target, n_classes) + prior
        # The matrix stands in the weights and in the noise.
        in_weights = sharpness * transition * (excess.T @ scores - mass[:, None] * logs)
        slope = (counts - in_weights).sum(axis=1, keepdims=True) * transition - counts + in_weights
        gradient = [slope.ravel(), mass + bias, [in_weights.sum()]]
        return value / len(target), np.concatenate(gradient) / len(target)

    found = minimize(
        loss,
        np.concatenate(
            [np.log(np.maximum(start, _SMALLEST_TRANSITION)).ravel(), np.zeros(n_classes + 1)]
        ),
        jac=True,
        method="L-BFGS-B",
        bounds=[(None, None)] * (n_free + n_classes) + [(-_LOG_SHARPNESS, _LOG_SHARPNESS)],
        options={"maxiter": max_iter, "ftol": _TOLERANCE},
    )
    transition, bias, sharpness = unpack(found.x)
    entropy = -(transition * np.log(np.maximum(transition, _SMALLEST_LIKELIHOOD))).sum(axis=1)
    return SoftmaxLayer(sharpness * transition.T, bias + sharpness * entropy, transition)


def _softmax(logits: FloatArray) -> FloatArray:
    """Return the softmax of each row; that of scipy takes several times as long."""
    logits = logits - logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits
