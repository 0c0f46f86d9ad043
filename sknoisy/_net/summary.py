"""Summary of a trained net: averages of its predictions over the training data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sknoisy._crowd.annotators import (
    DEFAULT_PRIOR,
    annotator_counts,
    annotator_quality,
    shrunk_transitions,
)
from sknoisy._data.training_data import TrainingData
from sknoisy._distributed.batches import rows_of_pass
from sknoisy._model import equations as F
from sknoisy._model.annotator_noise import AnnotatorTransition
from sknoisy._model.loss import log_column
from sknoisy._net.net import SkorchNet
from sknoisy._transition.counts import expected_transition

_CERTAIN = 700.0  # a logarithm of odds that no prediction outweighs


def summary(
    net: SkorchNet,
    data: TrainingData,
    running_prior: Callable[[np.ndarray], np.ndarray] = np.asarray,
    *,
    noise_is_unknown: bool = False,
) -> dict[str, Any]:
    """Return the attributes that sum up what a net has learned.

    Parameters
    ----------
    net : SkorchNet
    data : TrainingData
        The rows to average over.
    running_prior : callable, optional
        Turns the mean clean probability of these rows into that of all rows of a stream.
    noise_is_unknown : bool, default=False
        Whether the noise has not been estimated yet; its rate is then NaN.
    """
    prior, transition = summarise(net, data)
    prior = running_prior(prior)
    return {
        "class_prior_": prior,
        "transition_matrix_": transition,
        "noise_rate_": (np.nan if noise_is_unknown else float(prior @ (1.0 - np.diag(transition)))),
        "history_": net.whole_history(),
        "n_iter_": len(net.whole_history()),
    }


def summarise(net: SkorchNet, data: TrainingData) -> tuple[np.ndarray, np.ndarray]:
    """Average the predictions for the training data, in one pass over it.

    Returns
    -------
    class_prior : ndarray of shape (n_classes,)
        Mean clean probability, ``sum_t p(y=i|x_t) / n``.
    transition : ndarray of shape (true, observed)
        ``sum_t p(y=i|x_t) p(z=j|y=i,x_t) / sum_t p(y=i|x_t)``, which for the s-model is its
        matrix and without a noise layer the identity.
    """
    _, weight = data.tensors()
    group = net.group
    dataset, share = rows_of_pass(data.dataset(), group)
    if weight is not None and group.size > 1:
        weight = weight[share.of_pass()]
    prior = torch.zeros(data.n_classes, dtype=torch.float64)
    joint = torch.zeros(data.n_classes, data.n_classes, dtype=torch.float64)
    start = 0
    noise = net.network.noise
    for clean_log_proba, hidden in net.batch_outputs(dataset):
        proba = clean_log_proba.cpu().double().exp()
        if weight is not None:
            proba = proba * weight[start : start + len(proba), None]
        prior += proba.sum(dim=0)
        if noise is not None and noise.depends_on_features:
            joint += noise.joint_counts(proba, hidden)
        start += len(proba)
    for total in (prior, joint):
        group.add_up(total)
    check_no_nan(net, prior)
    if noise is None:
        transition = np.eye(data.n_classes)
    elif noise.depends_on_features:
        transition = expected_transition(joint.numpy(), smallest=0.0)
    else:
        transition = noise.matrix()
    return (prior / prior.sum()).numpy(), transition


def summarise_annotators(
    net: SkorchNet,
    data: TrainingData,
    annotator_prior: float | None,
    counts: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return the attributes that sum up what was learned of the annotators.

    Without a noise layer they are compared with the majority, whose ties the network decides.

    Parameters
    ----------
    net : SkorchNet
    data : TrainingData
    annotator_prior : float or None
        What the user chose.
    counts : ndarray of shape (n_annotators, true, observed), default=None
        Soft counts of all rows of a stream; None takes those of these rows.
    """
    answers, noise = data.answers, net.network.noise
    if answers is None:
        return {}
    log_joint = net.clean_log_proba(data.dataset()).double()
    if noise is None:
        log_joint = log_joint + _CERTAIN * torch.from_numpy(answers.votes())
    else:
        column = log_column(noise, data.labels().to(net.device), None)
        log_joint = log_joint + column.detach().cpu().double()
    known = data.true_labels()
    if known is not None:
        log_joint = F.given_true_label(log_joint, known)
    posterior = log_joint.softmax(dim=1).numpy()
    n_answers = answers.answers_of_annotators()
    if counts is None:
        counts = annotator_counts(posterior, answers, data.weight)
    else:
        n_answers = np.round(counts.sum(axis=(1, 2))).astype(np.intp)
    if isinstance(noise, AnnotatorTransition):
        transitions = noise.transitions()
        power, prior = noise.answer_power, noise.annotator_prior
    else:
        power, prior = 1.0, DEFAULT_PRIOR if annotator_prior is None else annotator_prior
        transitions = shrunk_transitions(counts, prior)
    quality, error = annotator_quality(counts)
    return {
        "annotators_": answers.annotators,
        "annotator_transitions_": transitions,
        "annotator_quality_": quality,
        "annotator_quality_error_": error,
        "annotator_answer_counts_": n_answers,
        "annotator_prior_": prior,
        "answer_power_": power,
    }


def check_no_nan(net: SkorchNet, outputs: Tensor) -> None:
    """Stop where the last step of a stage has ruined the network, after its loss was taken."""
    if torch.isnan(outputs).any():
        when = "before the first epoch"
        if net.history:
            when = "in epoch {} (stage {!r})".format(*net.history[-1, ("epoch", "stage")])
        raise ValueError(
            f"The predictions of the network became nan {when}. Lower the learning rate `lr` (now "
            f"{net.lr}) or scale X, for instance with StandardScaler."
        )
