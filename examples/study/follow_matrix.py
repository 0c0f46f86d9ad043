"""
Where the matrix goes while the network learns
==============================================

Joint training from the default start that goes on for 160 epochs, without early stopping. Every
fifth epoch: the error of the transition matrix (mean total variation), the share of wrong labels
that it says, the share of the wrong labels of the training rows that the network predicts itself,
that it has memorised, and the accuracy on clean test labels::

    python examples/study/follow_matrix.py --data FOLDER --seeds 0 1
    python examples/study/follow_matrix.py --summary
    python examples/study/follow_matrix.py --draw           # matrix_epochs.png

with the default prior, without it, with ten times as much, and with a learning rate of the noise
layer of its own. ``FOLDER`` holds ``usps.npz`` and ``letter.npz``, which OpenML has too.
Every finished run is in ``matrix_epochs.csv``; a script that was stopped goes on where it stopped.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import Data, append, finished, letter, observe, subset, usps
from skorch.callbacks import Callback

from sknoisy import NoisyLabelClassifier
from sknoisy.metrics import transition_matrix_error

RESULTS = Path(__file__).with_name("matrix_epochs.csv")
FIELDS = [
    "setting", "noise", "arm", "seed", "epoch", "error", "rate", "true_rate", "memorised",
    "accuracy",
]  # fmt: skip
N_EPOCHS, EVERY = 160, 5
SETTINGS: dict[str, tuple[Any, list[str]]] = {
    "letter-4000": (subset(letter, 4000), ["pair.4", "sym.4"]),
    "usps-3000": (subset(usps, 3000), ["pair.4", "sym.4"]),
}
ARMS: dict[str, dict[str, Any]] = {
    "default": {},
    "no prior": {"transition_prior": 0.0},
    "prior of 10": {"transition_prior": 10.0},
    "noise lr x 10": {"optimizer__param_groups": [("noise.*", {"lr": 1e-2})]},
    "noise lr / 10": {"optimizer__param_groups": [("noise.*", {"lr": 1e-4})]},
}


class Follow(Callback):
    """Take note of the noise layer and the network every fifth epoch of the joint stage."""

    def __init__(self, data: Data, observed: np.ndarray, true: np.ndarray) -> None:
        self.data = data
        self.observed = observed
        self.true = true
        self.rows: list[dict[str, Any]] = []

    def __deepcopy__(self, memo: Any) -> Follow:
        return self  # the classifier trains with copies, whose rows nobody would see

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Measure."""
        epoch = sum(row["stage"] == "s" for row in net.history)
        if net.history[-1]["stage"] != "s" or (epoch % EVERY and epoch != 1):
            return
        transition = net.network.noise.transition().detach().double().numpy()
        with torch.inference_mode():
            predicted = [
                net.network(torch.as_tensor(X, dtype=net.dtype))[0].argmax(1).numpy()
                for X in (self.data.X, self.data.X_test)
            ]
        wrong = self.observed != self.data.y
        own = self.data.y == np.arange(len(transition))[:, None]
        share = own.mean(axis=1)
        self.rows.append(
            {
                "epoch": epoch,
                "error": round(transition_matrix_error(transition, self.true), 5),
                "rate": round(float(share @ (1.0 - np.diag(transition))), 5),
                "true_rate": round(float(wrong.mean()), 5),
                "memorised": round(float(np.mean((predicted[0] == self.observed)[wrong])), 5),
                "accuracy": round(float(np.mean(predicted[1] == self.data.y_test)), 5),
            }
        )


def run(setting: str, noise: str, arm: str, seed: int, folder: Path | None) -> list[dict[str, Any]]:
    """Train from the default start for all epochs."""
    data = SETTINGS[setting][0](folder, seed)
    observed, true = observe(data, noise, seed)
    common = {"hidden_layer_sizes": (200,), "random_state": seed}
    start = NoisyLabelClassifier(**common).fit(data.X, observed).initial_transition_matrix_
    follow = Follow(data, observed, true)
    NoisyLabelClassifier(
        transition_init=start,
        max_epochs=N_EPOCHS,
        n_iter_no_change=N_EPOCHS,
        callbacks=[("follow", follow)],
        **common,
        **ARMS[arm],
    ).fit(data.X, observed)
    of_start = {"epoch": 0, "error": round(transition_matrix_error(start, true), 5)}
    named = {"setting": setting, "noise": noise, "arm": arm, "seed": seed}
    return [named | row for row in (of_start, *follow.rows)]


def series(rows: list[dict[str, str]], key: tuple[str, str, str], what: str) -> dict[int, float]:
    """Return the mean over the seeds for each epoch."""
    values: dict[int, list[float]] = {}
    for row in rows:
        if tuple(row[name] for name in FIELDS[:3]) == key and row[what]:
            values.setdefault(int(row["epoch"]), []).append(float(row[what]))
    return {epoch: float(np.mean(found)) for epoch, found in sorted(values.items())}


def summarise(rows: list[dict[str, str]]) -> None:
    """Print a few epochs of each run, and the epoch with the least error."""
    shown = (0, 5, 20, 40, 80, N_EPOCHS)
    print(f"{'error at epoch':42}" + "".join(f"{epoch:>7}" for epoch in shown) + "  least at")
    for key in dict.fromkeys(tuple(row[name] for name in FIELDS[:3]) for row in rows):
        for what in ("error", "rate", "memorised", "accuracy"):
            values = series(rows, key, what)  # type: ignore[arg-type]
            line = "".join(f"{values.get(epoch, np.nan):7.3f}" for epoch in shown)
            least = f"{min(values, key=values.__getitem__):8d}" if what == "error" else ""
            print(f"{key[0]:12} {key[1]:7} {key[2]:14} {what:9}{line}{least}")


def draw(rows: list[dict[str, str]]) -> None:
    """Draw error, rate and memory over the epochs."""
    import matplotlib.pyplot as plt

    kinds = list(dict.fromkeys((row["setting"], row["noise"]) for row in rows))
    colours = dict(zip(ARMS, ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"), strict=True))
    names = {
        "error": "error of the matrix",
        "rate": "rate of wrong labels\n(dotted: true)",
        "memorised": "share of wrong labels\nmemorised",
    }
    figure, panels = plt.subplots(
        len(names), len(kinds), figsize=(9, 6.5), sharex=True, sharey="row", layout="constrained"
    )
    for column, kind in enumerate(kinds):
        panels[0, column].set_title(", ".join(kind), fontsize=9)
        for panel, what in zip(panels[:, column], names, strict=True):
            for arm, colour in colours.items():
                values = series(rows, (*kind, arm), what)
                panel.plot(list(values), list(values.values()), color=colour, label=arm, lw=1.2)
        true = series(rows, (*kind, "default"), "true_rate")
        panels[1, column].plot(list(true), list(true.values()), color="0.3", ls=":", lw=1)
        panels[-1, column].set_xlabel("epoch of the joint training")
    for panel, name in zip(panels[:, 0], names.values(), strict=True):
        panel.set_ylabel(name)
        panel.set_ylim(bottom=0)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    figure.savefig(RESULTS.with_suffix(".png"), dpi=150)


def main() -> None:
    """Run what is missing, print or draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--data", type=Path, help="folder of .npz files")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--draw", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if args.draw:
        draw(finished(args.output))
        return
    done = {tuple(row[name] for name in FIELDS[:4]) for row in finished(args.output)}
    for seed in [] if args.summary else args.seeds:
        for setting in args.settings:
            for noise in SETTINGS[setting][1]:
                for arm in args.arms:
                    if (setting, noise, arm, str(seed)) not in done:
                        for row in run(setting, noise, arm, seed, args.data):
                            append(args.output, FIELDS, row)
                        print(setting, noise, arm, seed, flush=True)
    summarise(finished(args.output))


if __name__ == "__main__":
    main()
