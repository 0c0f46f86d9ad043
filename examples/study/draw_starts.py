"""
Draw the table of ``study_starts.py``
=====================================

One row for each data set and noise, one mark for each way to train: the plain network, the
published start, the default, and the true matrix, which nobody knows. Bars are the spread over
the seeds. A second figure sets the accuracy of each way against that of training through the true
matrix, with the problems of ``study_grid.py`` beside these: a point on the diagonal has lost
nothing by not knowing it::

    python examples/study/draw_starts.py    # reads starts.csv, grid.csv; writes starts.png,
                                            # starts_known.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import study_grid
from data_sets import finished
from study_starts import RESULTS, SETTINGS

SHOWN = {
    "plain": ("plain", "0.55", "o"),
    "cleanlab": ("cleanlab", "#CC79A7", "v"),
    "s-confusion": ("published start", "#D55E00", "s"),
    "s": ("sknoisy, s-model", "#0072B2", "D"),
    "c": ("c-model", "#E69F00", "P"),
    "em": ("EM", "#009E73", "X"),
    "known": ("known matrix", "k", "|"),
}


def by_seed(rows: list[dict[str, str]], method: str) -> dict[tuple[str, str], dict[str, float]]:
    """Return the accuracies of a method, by data and noise and then by seed."""
    values: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        if row["method"] == method:
            line = values.setdefault((row["setting"], row["noise"]), {})
            line[row["seed"]] = float(row["accuracy"])
    return values


def draw_against_known(rows: list[dict[str, str]], path: Path) -> None:
    """Draw the accuracy of each method against that with the true matrix, means over its seeds."""
    figure, axes = plt.subplots(figsize=(6.5, 6), layout="constrained")
    known, lowest = by_seed(rows, "known"), 1.0
    for method in ("plain", "s", "c", "em"):
        label, color, marker = SHOWN[method]
        x, y = [], []
        for line, values in by_seed(rows, method).items():
            seeds = values.keys() & known.get(line, {}).keys()
            if seeds:
                x.append(np.mean([known[line][seed] for seed in seeds]))
                y.append(np.mean([values[seed] for seed in seeds]))
        axes.plot(x, y, marker, color=color, label=label, alpha=0.85)
        lowest = min([lowest, *x])
    axes.axline((lowest, lowest), slope=1, color="0.5", lw=0.8, zorder=0)
    axes.set(
        xlabel="accuracy of training through the true matrix",
        ylabel="accuracy on clean test labels",
    )
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description="Draw the results of study_starts.py")
    parser.add_argument("--input", type=Path, default=RESULTS)
    parser.add_argument("--output", type=Path, default=RESULTS.with_suffix(".png"))
    args = parser.parse_args()
    rows = finished(args.input)
    present = {(row["setting"], row["noise"]) for row in rows}
    lines = [(s, n) for s, (_, noises, _) in SETTINGS.items() for n in noises if (s, n) in present]
    figure, axes = plt.subplots(figsize=(8.5, 1 + 0.3 * len(lines)), layout="constrained")
    for method, (label, color, marker) in SHOWN.items():
        values = {line: list(found.values()) for line, found in by_seed(rows, method).items()}
        at = [i for i, line in enumerate(lines) if line in values]
        axes.errorbar(
            [np.mean(values[lines[i]]) for i in at],
            at,
            xerr=[np.std(values[lines[i]]) for i in at],
            fmt=marker,
            color=color,
            label=label,
            markersize=11 if marker == "|" else 6,
            alpha=0.85,
            linestyle="none",
        )
    axes.set_yticks(range(len(lines)), [f"{setting}, {noise}" for setting, noise in lines])
    axes.invert_yaxis()
    axes.set(xlabel="accuracy on clean test labels")
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(args.output, dpi=110)
    grid = [row | {"setting": row["problem"]} for row in finished(study_grid.RESULTS)]
    draw_against_known(rows + grid, args.output.with_name(f"{args.output.stem}_known.png"))


if __name__ == "__main__":
    main()
