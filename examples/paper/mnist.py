"""
The published figure for MNIST
==============================

Clean test accuracy against the share of labels that a permutation of the digits has changed,
with 20 %, 50 % or 100 % of the training data (Goldberger and Ben-Reuven, ICLR 2017): the
baseline, bootstrapping, the s-model and the c-model, by the formula as printed, by the public code,
and with the defaults of this package, and EM for the s-model, of which no figure was published::

    python examples/paper/mnist.py --quick                    # minutes, on a laptop
    python examples/paper/mnist.py --sizes 20 --threads 1
    python examples/paper/mnist.py --sizes 100 --levels .3 .4 .46 .48 .49 --device cuda
    python examples/paper/mnist.py --sizes 20 --levels .4 .46 .48 --methods s-code-soft c-code-soft
    python examples/paper/mnist.py --summary

Chains named ``code-...`` in ``protocol.py`` change one thing of the public code; they are run when
their methods are named.
Every finished run is a row of ``mnist.csv``; a script that was stopped goes on where it stopped.
``draw_paper.py`` draws it. ``--data FOLDER`` holds ``mnist.npz`` (arrays x_train, y_train,
x_test, y_test); without it MNIST comes from OpenML.

The network is 784-500-300-10 with ReLU and dropout .5, trained by Adam with batches of 256, at
most 40 epochs a stage, and early stopping with patience 4 on a tenth of the noisy rows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from protocol import CHAINS, Figure, Images, main
from sklearn.datasets import fetch_openml
from torch import nn

from sknoisy.noise import permutation_transition

#: The permutation of the digits that the paper flips to.
PERMUTATION = [7, 9, 0, 4, 2, 1, 3, 5, 6, 8]
#: The levels of the published plot.
LEVELS = 0.30, 0.36, 0.38, 0.40, 0.42, 0.44, 0.46, 0.47, 0.475, 0.48, 0.485, 0.49, 0.495, 0.50


def load(folder: Path | None) -> Images:
    """Return MNIST as float32 rows in [0, 1]."""
    if folder is None:
        X, y = fetch_openml("mnist_784", version=1, return_X_y=True, as_frame=False)
        parts = X[:60000], y[:60000], X[60000:], y[60000:]
    else:
        with np.load(folder / "mnist.npz") as stored:
            parts = tuple(stored[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    X, y, X_test, y_test = parts
    rows = (np.asarray(a, dtype=np.float32).reshape(len(a), -1) / 255 for a in (X, X_test))
    return Images(next(rows), y.astype(int), next(rows), y_test.astype(int))


def hidden_layers() -> nn.Sequential:
    """Return the hidden layers of the paper, without the default network's standardisation."""
    layers: list[nn.Module] = []
    for n_in, n_out in ((784, 500), (500, 300)):
        layers += [nn.Linear(n_in, n_out), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*layers)


def network() -> nn.Module:
    """Return the network of the paper with its softmax layer, for bootstrapping."""
    return nn.Sequential(*hidden_layers(), nn.Linear(300, 10))


FIGURE = Figure(
    name="mnist",
    load=load,
    transition=lambda level, seed: permutation_transition(PERMUTATION, level),
    options={"module": hidden_layers, "batch_size": 256},
    network=network,
    levels=list(LEVELS),
    chains=["formula", "code", "ours", "ours-c", "em-formula", "em", "reed-soft", "reed-hard"],
    quick_size=5.0,
    variants=[name for name in CHAINS if name.startswith(("code-", "formula-"))],
)

if __name__ == "__main__":
    main(FIGURE, __doc__.split("\n\n")[1])
