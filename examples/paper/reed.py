"""Bootstrapping, one of the methods that the paper compares with.

S. Reed et al., "Training deep neural networks on noisy labels with bootstrapping", ICLR 2015
workshop: the target is a mixture of the observed label and of what the network predicts.
"""

from __future__ import annotations

from typing import Any

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit
from torch import Tensor, nn


class BootstrapLoss(nn.Module):
    """Cross entropy between a network and ``beta * label + (1 - beta) * prediction``.

    Parameters
    ----------
    beta : float
        Weight of the observed label; the published ones are .95 (soft) and .8 (hard).
    hard : bool
        Whether the prediction is the likeliest class, and not the probabilities.
    """

    def __init__(self, beta: float, hard: bool) -> None:
        super().__init__()
        self.beta = beta
        self.hard = hard

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss.

        Parameters
        ----------
        logits : Tensor of shape (n, n_classes)
        target : Tensor of shape (n,)
            Encoded observed labels.
        """
        log_proba = torch.log_softmax(logits, dim=1)
        of_label = log_proba.gather(1, target[:, None])[:, 0]
        if self.hard:
            of_prediction = log_proba.amax(dim=1)
        else:
            of_prediction = (log_proba.exp() * log_proba).sum(dim=1)
        return -(self.beta * of_label + (1 - self.beta) * of_prediction).mean()


def bootstrap_classifier(
    network: nn.Module, *, beta: float, hard: bool, max_epochs: int, seed: int, **options: Any
) -> NeuralNetClassifier:
    """Return a classifier that trains a network by the protocol of the paper.

    Adam at its defaults, batches of 256, and early stopping with patience 4 on the loss of a
    tenth of the rows, stratified by the observed label.

    Parameters
    ----------
    network : nn.Module
        Maps a batch to logits of shape (n, n_classes).
    beta, hard
        As in `BootstrapLoss`.
    max_epochs, seed : int
    **options
        Further parameters of `skorch.NeuralNetClassifier`.
    """
    return NeuralNetClassifier(
        network,
        criterion=BootstrapLoss,
        criterion__beta=beta,
        criterion__hard=hard,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=256,
        max_epochs=max_epochs,
        iterator_train__shuffle=True,
        train_split=ValidSplit(0.1, stratified=True, random_state=seed),
        callbacks=[("stop", EarlyStopping(patience=4, load_best=True, sink=lambda _: None))],
        callbacks__valid_acc=None,
        verbose=0,
        **options,
    )
