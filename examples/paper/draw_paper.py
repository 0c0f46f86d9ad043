"""
Draw the tables next to the published curves
============================================

One panel for each share of the training data. Broken lines with hollow marks are the published
means, read off the plots; full lines are the runs in the table, with the spread over the seeds
where there are several::

    python examples/paper/draw_paper.py           # reads *.csv, writes *.png and *_table.rst

The same numbers go into a table for the documentation.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from protocol import finished
from published import PUBLISHED

HERE = Path(__file__).parent
#: method: (label, color, mark, the published curve it repeats)
SHOWN = {
    "baseline": ("baseline", "0.55", "o", "baseline"),
    "reed-soft": ("Reed, soft", "tab:olive", "v", "reed-soft"),
    "reed-hard": ("Reed, hard", "tab:brown", "^", "reed-hard"),
    "s-formula": ("s, formula", "tab:orange", "s", "s"),
    "c-formula": ("c, formula", "tab:red", "P", "c"),
    "em-formula": ("EM, formula", "tab:pink", "X", None),
    "s-sparse-formula": ("s, formula, 5 targets", "tab:purple", "<", None),
    "c-sparse-formula": ("c, formula, 5 targets", "tab:purple", ">", None),
    "s": ("s, default start", "tab:blue", "D", None),
    "c": ("c, default start", "tab:cyan", "p", None),
    "em": ("EM, default start", "tab:green", "*", None),
    "s-sparse": ("s, default start, 5 targets", "navy", "<", None),
    "c-sparse": ("c, default start, 5 targets", "navy", ">", None),
}


def draw_panel(axes: Axes, data: str, size: int, rows: list[dict[str, str]]) -> None:
    """Draw what was published and what was run with one share of the data."""
    for method, (label, color, mark, published) in SHOWN.items():
        curve = PUBLISHED.get((data, size, published or ""), {})
        if curve:
            axes.plot(
                list(curve),
                list(curve.values()),
                color=color,
                marker=mark,
                markerfacecolor="none",
                linestyle="--",
                linewidth=0.9,
                alpha=0.8,
                label=f"{published} (published)",
            )
        found: dict[float, list[float]] = {}
        for row in rows:
            if row["method"] == method and float(row["size"]) == size:
                found.setdefault(float(row["level"]), []).append(float(row["accuracy"]))
        levels = sorted(found)
        if levels:
            axes.errorbar(
                levels,
                [np.mean(found[level]) for level in levels],
                yerr=[np.std(found[level]) for level in levels],
                color=color,
                marker=mark,
                capsize=2,
                label=label,
            )
    axes.set(
        title=f"{size} % of the data",
        xlabel="share of changed labels",
    )
    axes.grid(alpha=0.3)


def table(data: str, rows: list[dict[str, str]]) -> Iterator[str]:
    """Yield the lines of a reStructuredText table for each share of the data."""
    for size in sorted({float(row["size"]) for row in rows}):
        found: dict[tuple[str, float], list[float]] = {}
        for row in rows:
            if float(row["size"]) == size:
                key = row["method"], float(row["level"])
                found.setdefault(key, []).append(float(row["accuracy"]))
        levels = sorted({level for _, level in found})
        counts = {len(values) for values in found.values()}
        same = f"{max(counts)} seed{'s'[: max(counts) > 1]}" if len(counts) == 1 else ""
        yield f".. list-table:: {size:g} % of the data; {same or 'number of seeds in brackets'}"
        yield "   :header-rows: 1\n"
        yield "   * - noise"
        yield from (f"     - {level:.2f}" for level in levels)
        for method, (label, _, _, published) in SHOWN.items():
            curve = PUBLISHED.get((data, int(size), published or ""), {})
            if any(level in curve for level in levels):
                yield f"   * - *{published}, published*"
                for level in levels:
                    yield f"     - *{curve[level]:.3f}*" if level in curve else "     -"
            if any(name == method for name, _ in found):
                yield f"   * - {label}"
                for level in levels:
                    values = found.get((method, level), [])
                    spread = f" ± {np.std(values):.3f}" if len(values) > 1 else ""
                    seeds = "" if same else f" ({len(values)})"
                    yield f"     - {np.mean(values):.3f}{spread}{seeds}" if values else "     -"
        yield ""


def draw(data: str, rows: list[dict[str, str]], output: Path) -> None:
    """Draw one data set."""
    sizes = sorted({int(float(row["size"])) for row in rows} & {20, 50, 100})
    figure, panels = plt.subplots(
        1, len(sizes), figsize=(5.2 * len(sizes) + 3, 5), layout="constrained", squeeze=False
    )
    for axes, size in zip(panels[0], sizes, strict=True):
        draw_panel(axes, data, size, rows)
    panels[0, 0].set_ylabel("accuracy on clean test labels")
    entries = {
        label: handle
        for axes in panels[0]
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(entries.values()), list(entries), loc="outside right upper", frameon=False, fontsize=8
    )
    figure.savefig(output, dpi=110)


def main() -> None:
    """Draw every table that exists."""
    parser = argparse.ArgumentParser(description="Draw the results next to the published curves")
    parser.add_argument("--input", type=Path, default=HERE, help="folder of the tables")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the figures")
    args = parser.parse_args()
    for data in ("mnist", "cifar100"):
        if rows := finished(args.input / f"{data}.csv"):
            draw(data, rows, args.output / f"{data}.png")
            text = "\n".join(table(data, rows))
            (args.output / f"{data}_table.rst").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
