"""
Draw the tables next to the published curves
============================================

Two figures, MNIST and CIFAR-100, with one panel for each share of the training data and five lines
in a panel: the published means of s and c, what the protocol of the public code gives for them, and
the s-model from the default start. The spread is that of the seeds. All else goes into tables for
the documentation::

    python examples/paper/draw_paper.py           # reads *.csv, writes *.png and *.rst
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from protocol import finished
from published import PUBLISHED

HERE = Path(__file__).parent
#: method: (label, the published curve it repeats)
SHOWN = {
    "baseline": ("baseline", "baseline"),
    "baseline-code": ("baseline, public code", None),
    "reed-soft": ("Reed, soft", "reed-soft"),
    "reed-hard": ("Reed, hard", "reed-hard"),
    "s-formula": ("s, formula", "s"),
    "s-code": ("s, public code", None),
    "s": ("s, default", None),
    "c-formula": ("c, formula", "c"),
    "c-code": ("c, public code", None),
    "c": ("c, default", None),
    "em-formula": ("EM, formula", None),
    "em": ("EM, default", None),
    "s-sparse-formula": ("s, formula, 5 targets", None),
    "s-sparse-code": ("s, public code, 5 targets", None),
    "s-sparse": ("s, default, 5 targets", None),
    "c-sparse-formula": ("c, formula, 5 targets", None),
    "c-sparse-code": ("c, public code, 5 targets", None),
    "c-sparse": ("c, default, 5 targets", None),
    "s-patient": ("s, patience 15", None),
    "c-patient": ("c, patience 15", None),
    "baseline-glorot": ("baseline, Glorot's weights", None),
    "s-glorot": ("s, Glorot's weights", None),
    "c-glorot": ("c, Glorot's weights", None),
    "baseline-glorot-patient": ("baseline, both", None),
    "s-glorot-patient": ("s, both", None),
    "c-glorot-patient": ("c, both", None),
    "known": ("known matrix", None),
    "known-glorot": ("known matrix, Glorot's weights", None),
    "known-patient": ("known matrix, patience 15", None),
}
#: The lines of a panel: (method, label, color, mark).
CODE_LINES = [
    ("s-code", "s, public code", "tab:orange", "s"),
    ("c-code", "c, public code", "tab:red", "o"),
]
LINES = {
    "mnist": [*CODE_LINES, ("s", "s, default start", "tab:blue", "D")],
    "cifar100": [
        *CODE_LINES,
        ("s-glorot", "s, default start,\nGlorot's weights", "tab:blue", "D"),
    ],
}
#: What is changed of the public code, or of the formula, and how the methods are called.
DIFFERENCES = {
    "the public code": "code",
    "soft counts, as printed": "code-soft",
    "counts on the held-out tenth": "code-held-out",
    "best epoch, not the last": "code-best-epoch",
    "b of s taken over by c": "code-kept-bias",
    "torch's initial weights": "code-torch-weights",
    "calibrated stopping": "code-calibrated-stop",
    "the formula": "formula",
    "the formula, hard counts": "formula-hard",
}
#: Above this accuracy on MNIST no digit is lost.
NO_DIGIT_LOST = 0.9

Found = dict[tuple[float, str, float], list[dict[str, str]]]


def grouped(rows: Iterable[dict[str, str]]) -> Found:
    """Return the rows of each (size, method, level)."""
    found: Found = {}
    for row in rows:
        found.setdefault((float(row["size"]), row["method"], float(row["level"])), []).append(row)
    return found


def values_of(rows: list[dict[str, str]], field: str = "accuracy") -> np.ndarray:
    """Return a column, without what is missing."""
    return np.array([float(row[field]) for row in rows if row[field]])


def draw_panel(axes: Axes, data: str, size: int, found: Found) -> None:
    """Draw what was published and what was run with one share of the data."""
    for method, label, color, mark in LINES[data]:
        curve = PUBLISHED.get((data, size, method[0]), {}) if method.endswith("-code") else {}
        if curve:
            axes.plot(
                list(curve),
                list(curve.values()),
                color=color,
                marker=mark,
                markerfacecolor="none",
                linestyle="--",
                linewidth=0.9,
                label=f"{method[0]}, published",
            )
        levels = sorted(level for s, m, level in found if (s, m) == (size, method))
        if levels:
            groups = [values_of(found[size, method, level]) for level in levels]
            axes.errorbar(
                levels,
                [group.mean() for group in groups],
                yerr=[group.std() for group in groups],
                color=color,
                marker=mark,
                capsize=2,
                label=label,
            )
    axes.set(
        title=f"{size} % of the data",
        xlabel="share of changed labels",
        xticks=[0.3, 0.35, 0.4, 0.45, 0.5],
    )
    axes.grid(alpha=0.3)


def draw(data: str, found: Found, output: Path) -> None:
    """Draw one data set."""
    sizes = sorted(
        size
        for size in (20, 50, 100)
        if any((s, m) == (size, line[0]) for s, m, _ in found for line in LINES[data])
    )
    figure, panels = plt.subplots(
        1, len(sizes), figsize=(4.6 * len(sizes) + 1.6, 4.4), layout="constrained", squeeze=False
    )
    for axes, size in zip(panels[0], sizes, strict=True):
        draw_panel(axes, data, size, found)
    panels[0, 0].set_ylabel("accuracy on clean test labels")
    entries = {
        label: handle
        for axes in panels[0]
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(entries.values()), list(entries), loc="outside right upper", frameon=False)
    figure.savefig(output, dpi=110)


def _list_table(title: str, header: list[str], lines: Iterable[list[str]]) -> Iterator[str]:
    yield f".. list-table:: {title}"
    yield "   :header-rows: 1\n"
    for line in [header, *lines]:
        yield f"   * - {line[0]}"
        yield from (f"     - {cell}".rstrip() for cell in line[1:])
    yield ""


def _cell(rows: list[dict[str, str]], seeds: bool = True) -> str:
    values = values_of(rows)
    if not len(values):
        return ""
    spread = f" ± {values.std():.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{spread}" + (f" ({len(values)})" if seeds else "")


def accuracies(data: str, found: Found) -> Iterator[str]:
    """Yield the lines of a table of accuracies for each share of the data."""
    for size in sorted({size for size, _, _ in found}):
        levels = sorted({level for s, m, level in found if s == size and m in SHOWN})
        counts = {len(rows) for (s, m, _), rows in found.items() if s == size and m in SHOWN}
        same = f"{max(counts)} seed{'s'[: max(counts) > 1]}" if len(counts) == 1 else ""
        lines = []
        for method, (label, published) in SHOWN.items():
            curve = PUBLISHED.get((data, int(size), published or ""), {})
            if any(level in curve for level in levels):
                shown = [f"*{curve[x]:.3f}*" if x in curve else "" for x in levels]
                lines.append([f"*{published}, published*", *shown])
            if any((s, m) == (size, method) for s, m, _ in found):
                cells = [_cell(found.get((size, method, x), []), not same) for x in levels]
                lines.append([label, *cells])
        title = f"{size:g} % of the data; {same or 'number of seeds in brackets'}"
        yield from _list_table(title, ["noise", *(f"{x:g}" for x in levels)], lines)


def differences(found: Found) -> Iterator[str]:
    """Yield the lines of a table of what each difference of the public code does."""
    changed = [f"{stage}-{DIFFERENCES[name]}" for name in DIFFERENCES for stage in "sc"]
    only = {m for m in changed if m not in ("s-code", "c-code", "s-formula", "c-formula")}
    for size in sorted({s for s, m, _ in found if m in only}):
        levels = sorted({level for s, m, level in found if s == size and m in only})
        lines = [
            [name]
            + [
                _cell(found.get((size, f"{stage}-{chain}", level), []))
                for level in levels
                for stage in "sc"
            ]
            for name, chain in DIFFERENCES.items()
        ]
        header = ["changed", *(f"{stage}, {level:g}" for level in levels for stage in "sc")]
        yield from _list_table(f"{size:g} % of the data; seeds in brackets", header, lines)


def transition(found: Found) -> Iterator[str]:
    """Yield the lines of a table of how often no digit is lost, and of the error of the matrix."""
    shown, with_errors = ["s-code", "c-code", "s", "c", "em"], ["s-code", "s"]
    for size in sorted({s for s, m, _ in found if m == "s-code"}):
        lines = []
        for level in sorted({level for s, m, level in found if s == size and m in shown}):
            groups = {method: values_of(found.get((size, method, level), [])) for method in shown}
            line = [
                f"{np.count_nonzero(values > NO_DIGIT_LOST)} of {len(values)}"
                if len(values)
                else ""
                for values in groups.values()
            ]
            for method in with_errors:
                errors = values_of(found.get((size, method, level), []), "transition_error")
                line.append(f"{errors.mean():.3f}" if len(errors) else "")
            n_labels = 600 * size
            gap = 1 - 2 * level
            line += [f"{gap * np.sqrt(n):.1f}" for n in (n_labels / 10, n_labels)]
            lines.append([f"{level:g}", *line])
        header = [
            "noise",
            *(SHOWN[method][0] for method in shown),
            *(f"matrix, {SHOWN[method][0]}" for method in with_errors),
            "errors, one digit",
            "errors, all",
        ]
        yield from _list_table(f"{size:g} % of the data", header, lines)


def main() -> None:
    """Draw every table that exists."""
    parser = argparse.ArgumentParser(description="Draw the results next to the published curves")
    parser.add_argument("--input", type=Path, default=HERE, help="folder of the tables")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the figures")
    args = parser.parse_args()

    def write(name: str, lines: Iterable[str]) -> None:
        (args.output / f"{name}.rst").write_text("\n".join(lines), encoding="utf-8")

    for data in ("mnist", "cifar100"):
        if rows := finished(args.input / f"{data}.csv"):
            found = grouped(rows)
            draw(data, found, args.output / f"{data}.png")
            write(f"{data}_table", accuracies(data, found))
            write(f"{data}_differences", differences(found))
            if data == "mnist":
                write("mnist_transition", transition(found))


if __name__ == "__main__":
    main()
