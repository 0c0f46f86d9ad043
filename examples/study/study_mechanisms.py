"""
What was tried on noise that people and rules make
==================================================

Ways to train a network through a transition matrix, next to one another, in plain torch. All of
them begin with the known average matrix, kept in place by a prior worth the training rows, so that
what differs is the training and not the start. A tenth of the rows (a fifth of fewer than 2000) is
held out; the epoch is the one in which their observed labels are likeliest, after the clean
probabilities were sharpened as suits them best.

"plain" has no matrix, "matrix" is the s-model, and the others are the s-model with

- "later": the last epoch instead of the best one;
- "dropout .5" and "decay 1e-4" (L2) of the network;
- "mixup": mixed rows, ``l log p(z1 | mixed x) + (1 - l) log p(z2 | mixed x)``;
- "smoothing .1": ``.1 mean_i log p(y=i|x)`` added to the likelihood;
- "floor": the loss does not fall below the entropy of the noise (Toner and Storkey);
- "ema": averages of the weights over the last steps, .99 a step;
- "three": the mean of three networks' clean probabilities;
- "self-training": a new network on the label posteriors of the first, "matrix" at its best epoch;
- "down-weighted": rows whose observed label is unlikely weigh less;
- "groups": a matrix for each of eight clusters of X, shrunk towards the one of all rows;
- "c", "c, penalty": the c-model, without and with an L2 penalty of 1e-3 on what depends on x.

Columns: clean test accuracy, and the held-out log-likelihood that the package chooses by::

    python examples/study/study_mechanisms.py --data FOLDER
    python examples/study/study_mechanisms.py --summary
    python examples/study/study_mechanisms.py --table     # for the documentation
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import append, finished
from scipy.special import log_softmax, logsumexp
from sklearn.cluster import KMeans
from study_people import SETTINGS as PEOPLE
from study_people import average_matrix
from torch import Tensor, nn

RESULTS = Path(__file__).with_name("mechanisms.csv")
TABLE = Path(__file__).parents[2] / "doc" / "user_guide" / "mechanisms_table.txt"
FIELDS = ["setting", "mechanism", "seed", "accuracy", "log_likelihood", "epoch"]
SETTINGS = ["music-single", "labelme-majority", "hausa", "usps-instance.4"]
MECHANISMS: dict[str, dict[str, Any]] = {
    "plain": {"plain": True},
    "matrix": {},
    "later": {"last": True},
    "dropout .5": {"dropout": 0.5},
    "decay 1e-4": {"decay": 1e-4},
    "mixup": {"mixup": True},
    "smoothing .1": {"smoothing": 0.1},
    "floor": {"floor": True},
    "ema": {"ema": 0.99},
    "three": {"n_networks": 3},
    "self-training": {"self_training": True},
    "down-weighted": {"down_weighted": True},
    "groups": {"groups": 8, "penalty": 1e-3},
    "c": {"features": True},
    "c, penalty": {"features": True, "penalty": 1e-3},
}
N_EPOCHS = 60


class Model(nn.Module):
    """A network and a noise layer whose logits may depend on the hidden units or on a group."""

    def __init__(self, n_features: int, n_hidden: int, matrix: np.ndarray, **how: Any) -> None:
        super().__init__()
        k = len(matrix)
        self.hidden = nn.Sequential(nn.Linear(n_features, n_hidden), nn.ReLU())
        self.dropout = nn.Dropout(how.get("dropout", 0.0))
        self.head = nn.Linear(n_hidden, k)
        start = torch.from_numpy(np.maximum(matrix, 1e-6)).float()
        self.start = start / start.sum(1, keepdim=True)
        self.bias = nn.Parameter(self.start.log())
        self.has_matrix = not how.get("plain", False)
        self.by_features, self.groups = how.get("features", False), how.get("groups", 0)
        width = n_hidden if self.by_features else self.groups
        self.slope = nn.Parameter(torch.zeros(width, k, k))

    def forward(self, X: Tensor, group: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(y|x) and log p(z|y, x), both of shape (n, true)."""
        hidden = self.dropout(self.hidden(X))
        clean = self.head(hidden).log_softmax(1)
        if not self.has_matrix:
            column = torch.full_like(clean, -1e4).scatter(1, z[:, None], 0.0)
            return clean, column
        logits = self.bias[None]
        if self.by_features:
            logits = logits + torch.einsum("nh,hij->nij", hidden, self.slope)
        if self.groups:
            logits = logits + self.slope[group]
        log_transition = logits.log_softmax(2).expand(len(X), -1, -1)
        column = log_transition.gather(2, z[:, None, None].expand(-1, clean.shape[1], 1))[..., 0]
        return clean, column

    def prior(self, clean: Tensor) -> Tensor:
        """Return the log density of the prior of the matrix, worth the rows of a batch."""
        share = clean.detach().exp().mean(0)
        return (share[:, None] * self.start * self.bias.log_softmax(1)).sum()


def sharpened(clean: np.ndarray, column: np.ndarray) -> float:
    """Return the mean log-likelihood of labels, of the sharpness that suits them best."""
    return max(
        float(logsumexp(log_softmax(clean * power, axis=1) + column, axis=1).mean())
        for power in np.geomspace(0.3, 3, 15)
    )


class Run:
    """Train networks on one data set, and look at them after each epoch."""

    def __init__(self, setting: str, seed: int, folder: Path | None) -> None:
        load, params = PEOPLE[setting]
        data = load(folder, seed)
        self.seed, self.matrix = seed, average_matrix(data)
        self.n_hidden = params.get("hidden_layer_sizes", (100,))[0]
        X, X_test = (np.asarray(a, dtype=np.float32) for a in (data.X, data.X_test))
        scale = np.maximum(X.std(0), 0.2 * np.ptp(X, axis=0))
        scale[scale == 0] = 1
        mean = X.mean(0)
        self.X, self.X_test = (torch.from_numpy((a - mean) / scale) for a in (X, X_test))
        self.z = torch.from_numpy(np.asarray(data.y_observed, dtype=np.int64))
        self.y_test = data.y_test
        clusters = KMeans(8, n_init=2, random_state=seed).fit(self.X.numpy())
        self.group = torch.from_numpy(clusters.labels_.astype(np.int64))
        order = np.random.RandomState(seed).permutation(len(X))
        n_valid = len(X) // (5 if len(X) < 2000 else 10)
        self.valid, self.train = (torch.from_numpy(np.sort(part)) for part in
                                  (order[:n_valid], order[n_valid:]))  # fmt: skip
        self.batch_size = 256 if len(X) <= 256 else int(np.clip(len(X) // 20, 64, 256))

    def fit(
        self, how: dict[str, Any], number: int = 0, n_epochs: int = N_EPOCHS
    ) -> tuple[list[tuple[np.ndarray, ...]], Model]:
        """Return, for each epoch, predictions of test and of held-out rows; and the network."""
        torch.manual_seed(1000 * self.seed + number)
        model = Model(self.X.shape[1], self.n_hidden, self.matrix, **how)
        decay, penalty = how.get("decay", 0.0), how.get("penalty", 0.0)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        averaged = torch.optim.swa_utils.AveragedModel(
            model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(how.get("ema", 0.99))
        )
        entropy = float(-(self.matrix * np.log(np.maximum(self.matrix, 1e-12))).sum(1).mean())
        looks = []
        for _ in range(n_epochs):
            model.train()
            for rows in self.train[torch.randperm(len(self.train))].split(self.batch_size):
                log_likelihood, clean = self._log_likelihood(model, rows, how)
                loss = -log_likelihood.mean()
                if how.get("floor"):
                    loss = (loss - entropy).abs() + entropy
                if model.has_matrix and "target" not in how:
                    loss = loss - model.prior(clean)
                if decay:
                    loss = loss + decay * sum((w**2).sum() for w in model.hidden.parameters())
                if penalty:
                    loss = loss + penalty * (model.slope**2).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if "ema" in how:
                    averaged.update_parameters(model)
            looks.append(self._look(averaged.module if "ema" in how else model))
        return looks, model

    def _log_likelihood(
        self, model: Model, rows: Tensor, how: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        X, z, group = self.X[rows], self.z[rows], self.group[rows]
        if how.get("mixup"):
            share = torch.distributions.Beta(1.0, 1.0).sample((len(rows), 1))
            share = torch.maximum(share, 1 - share)
            other = torch.randperm(len(rows))
            mixed = share * X + (1 - share) * X[other]
            clean, first = model(mixed, group, z)
            _, second = model(mixed, group, z[other])
            both = [(clean + column).logsumexp(1) for column in (first, second)]
            return share[:, 0] * both[0] + (1 - share[:, 0]) * both[1], clean
        clean, column = model(X, group, z)
        if "target" in how:
            return (how["target"][rows] * clean).sum(1), clean
        log_likelihood = (clean + column).logsumexp(1)
        if "weight" in how:
            log_likelihood = log_likelihood * how["weight"][rows]
        return log_likelihood + how.get("smoothing", 0.0) * clean.mean(1), clean

    @torch.no_grad()
    def _look(self, model: Model) -> tuple[np.ndarray, ...]:
        model.eval()
        zeros = torch.zeros(len(self.X_test), dtype=torch.int64)
        test, _ = model(self.X_test, zeros, zeros)
        valid = model(self.X[self.valid], self.group[self.valid], self.z[self.valid])
        return test.numpy(), *(part.numpy() for part in valid)

    def judged(self, mechanism: str) -> dict[str, Any]:
        """Return the row of the table."""
        how = dict(MECHANISMS[mechanism])
        if how.keys() & {"self_training", "down_weighted"}:
            how |= self._from_posteriors(how)
        runs = [self.fit(how, number)[0] for number in range(how.get("n_networks", 1))]
        looks = [
            tuple(
                logsumexp(parts, axis=0) - np.log(len(runs)) for parts in zip(*epoch, strict=True)
            )
            for epoch in zip(*runs, strict=True)
        ]
        found = [sharpened(valid, column) for _, valid, column in looks]
        best = len(found) - 1 if how.get("last") else int(np.argmax(found))
        accuracy = np.mean(looks[best][0].argmax(1) == self.y_test)
        return {
            "accuracy": round(float(accuracy), 4),
            "log_likelihood": round(found[best], 4),
            "epoch": best + 1,
        }

    def _from_posteriors(self, how: dict[str, Any]) -> dict[str, Any]:
        """Return soft targets, or weights, from a network at its best epoch."""
        looks, _ = self.fit({})
        best = int(np.argmax([sharpened(valid, column) for _, valid, column in looks]))
        _, model = self.fit({}, n_epochs=best + 1)
        model.eval()
        with torch.no_grad():
            clean, column = model(self.X, self.group, self.z)
        joint = clean + column
        if "self_training" in how:
            return {"target": joint.softmax(1)}
        evidence = joint.logsumexp(1).exp()
        return {"weight": (evidence / evidence.quantile(0.25)).clamp(max=1)}


def as_table(rows: list[dict[str, str]]) -> list[list[str]]:
    """Return accuracy and held-out log-likelihood, means over the seeds that all have."""
    table: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for row in rows:
        table.setdefault((row["mechanism"], row["setting"]), {})[row["seed"]] = row
    settings = [s for s in SETTINGS if all((m, s) in table for m in MECHANISMS)]
    seeds = {s: set.intersection(*(set(table[m, s]) for m in MECHANISMS)) for s in settings}
    lines = [["training", *settings], ["seeds", *(str(len(seeds[s])) for s in settings)]]
    for mechanism in MECHANISMS:
        line = [mechanism]
        for setting in settings:
            runs = [table[mechanism, setting][seed] for seed in sorted(seeds[setting])]
            accuracy, likelihood = (
                np.mean([float(run[k]) for run in runs]) for k in ("accuracy", "log_likelihood")
            )
            line.append(f"{accuracy:.3f} ({likelihood:.3f})".replace("0.", "."))
        lines.append(line)
    return lines


def write_table(lines: list[list[str]], path: Path) -> None:
    """Write a table for the documentation."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rule = "  ".join("=" * width for width in widths)
    text = ["  ".join(f"{v:{w}}" for v, w in zip(line, widths, strict=True)) for line in lines]
    text = [rule, text[0], rule, *text[1:], rule]
    path.write_text("\n".join(line.rstrip() for line in text) + "\n", encoding="utf-8")


def main() -> None:
    """Run what is missing from the table, or print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--settings", nargs="+", choices=PEOPLE, default=SETTINGS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", type=Path, help="folder of .npz files")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true", help="print the table and stop")
    parser.add_argument("--table", action="store_true", help="write the table of the documentation")
    args = parser.parse_args()
    if args.table:
        write_table(as_table(finished(args.output)), TABLE)
        return
    torch.set_num_threads(1)
    done = {tuple(row[k] for k in FIELDS[:3]) for row in finished(args.output)}
    for seed in [] if args.summary else args.seeds:
        for setting in args.settings:
            missing = [m for m in MECHANISMS if (setting, m, str(seed)) not in done]
            if missing:
                run = Run(setting, seed, args.data)
            for mechanism in missing:
                row = {"setting": setting, "mechanism": mechanism, "seed": seed}
                row |= run.judged(mechanism)
                print(row, flush=True)
                append(args.output, FIELDS, row)
    for line in as_table(finished(args.output)):
        print("  ".join(f"{value:18}" for value in line))


if __name__ == "__main__":
    main()
