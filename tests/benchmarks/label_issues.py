"""Time and memory of label issues, once the probabilities are there.

For rising numbers of rows, each twice the one before: seconds of this process on one thread, the
largest memory that numpy held above the probabilities, and how both grow::

    OMP_NUM_THREADS=1 python tests/benchmarks/label_issues.py --classes 100
"""

from __future__ import annotations

import argparse
import time
import tracemalloc

import numpy as np
from scipy.special import softmax

from sknoisy.inspection import find_label_issues


def draw(n_rows: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities, and labels of which three of ten are the next class."""
    random = np.random.RandomState(seed)
    y = random.randint(n_classes, size=n_rows)
    scores = random.normal(size=(n_rows, n_classes))
    scores[np.arange(n_rows), y] += 5.0
    wrong = random.uniform(size=n_rows) < 0.3
    return softmax(scores, axis=1), np.where(wrong, (y + 1) % n_classes, y)


def main() -> None:
    """Print a line for each number of rows."""
    parser = argparse.ArgumentParser(description="Label issues from given probabilities")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--rows", type=int, nargs="+", default=[12_500, 25_000, 50_000])
    args = parser.parse_args()
    draw_few = draw(1000, 10)
    find_label_issues(None, None, draw_few[1], pred_proba=draw_few[0])  # imports
    last = None
    for n_rows in args.rows:
        proba, y = draw(n_rows, args.classes)
        began = time.process_time()
        issues = find_label_issues(None, None, y, pred_proba=proba)
        seconds = time.process_time() - began
        tracemalloc.start()
        find_label_issues(None, None, y, pred_proba=proba)
        megabytes = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        growth = "" if last is None else f"  x{seconds / last[0]:.2f} x{megabytes / last[1]:.2f}"
        print(
            f"{n_rows:7} rows, {args.classes} classes: {seconds:5.2f} s, {megabytes:6.0f} MB, "
            f"{megabytes / (8e-6 * proba.size):.1f} times the probabilities; "
            f"noise rate {issues.noise_rate:.3f}{growth}"
        )
        last = seconds, megabytes


if __name__ == "__main__":
    main()
