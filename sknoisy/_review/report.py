"""The report of label issues: a summary, and a page to decide in.

Labels and texts come from anywhere. In Python they are escaped; the script of the page writes them
as text, never as markup, and the page may load nothing.
"""

from __future__ import annotations

import json
import re
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from sknoisy._review.contents import Contents

_MOST_CLASSES_IN_MATRIX = 20
_MOST_CONFUSIONS = 20
_SMALLEST_SHOWN = 0.005
_MOST_FEATURES = 12

#: Characters that could end the script element that data stand in.
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def summary_text(issues: Any) -> str:
    """Return the summary as one line."""
    return f"<LabelIssues: {_headline(issues)}>"


def _headline(issues: Any) -> str:
    n_samples = len(issues.all_quality)
    line = f"{issues.count} of {n_samples} labels are probably wrong ({issues.noise_rate:.1%}"
    if issues.noise_rate_interval is not None:
        low, high = issues.noise_rate_interval
        line += f"; 90 % interval {low:.1%} to {high:.1%}"
    return line + ")"


def summary_html(issues: Any) -> str:
    """Return the summary as markup: rate, test and matrix."""
    parts = [f"<p class='headline'>{escape(_headline(issues))}.</p>"]
    test = issues.noise_test
    if test is None:
        parts.append(
            "<p>The labels were judged by an estimator that was trained on them: no interval and "
            "no test. Pass <code>cv</code>.</p>"
        )
    else:
        verdict = "noise is detected" if test.pvalue < 0.05 else "noise is not detected"
        parts.append(
            f"<p>Test whether there is noise at all: p = {test.pvalue:.2g}, {verdict} at 5 %. The "
            "noise model raises the log-likelihood of an unseen label by "
            f"{test.log_likelihood_gain:.3f} nats.</p>"
        )
    if issues.transition_matrix is not None:
        parts.append(_matrix_html(np.asarray(issues.transition_matrix), issues.classes))
    return f"<div class='sknoisy-summary'>{''.join(parts)}</div>"


def _matrix_html(transition: np.ndarray, classes: np.ndarray) -> str:
    names = [escape(str(name)) for name in classes.tolist()]
    if len(names) > _MOST_CLASSES_IN_MATRIX:
        return _confusions_html(transition, names)
    head = "".join(f"<th scope='col'>{name}</th>" for name in names)
    rows = "".join(
        f"<tr><th scope='row'>{name}</th>{''.join(_cell(value) for value in row)}</tr>"
        for name, row in zip(names, transition.tolist(), strict=True)
    )
    return (
        "<div style='overflow-x:auto'><table class='matrix'><caption>Probability of the observed "
        f"label (column) for each true class (row)</caption><tr><td></td>{head}</tr>{rows}"
        "</table></div>"
    )


def _cell(value: float) -> str:
    shown = f"{value:.2f}" if value >= _SMALLEST_SHOWN else ""
    colour = "#fff" if value > 0.6 else "#111"
    style = f"background:rgba(8,81,156,{np.sqrt(value):.2f});color:{colour}"
    return f"<td style='{style};padding:2px 6px;text-align:right'>{shown}</td>"


def _confusions_html(transition: np.ndarray, names: list[str]) -> str:
    off = np.where(np.eye(len(names), dtype=bool), 0.0, transition)
    worst = np.argsort(-off, axis=None)[:_MOST_CONFUSIONS]
    rows = "".join(
        f"<tr><td>{names[i]}</td><td>{names[j]}</td><td>{off[i, j]:.2f}</td></tr>"
        for i, j in zip(*np.unravel_index(worst, off.shape), strict=True)
    )
    return (
        f"<table class='matrix'><caption>The {len(worst)} most likely confusions of {len(names)} "
        "classes</caption><tr><th>true</th><th>observed</th><th>probability</th></tr>"
        f"{rows}</table>"
    )


def page(issues: Any, contents: Contents, *, title: str, max_rows: int) -> str:
    """Return the page; the parameters are those of ``issues.to_html``."""
    shown = np.arange(min(max_rows, issues.count))
    data = json.dumps(_rows(issues, contents, shown), ensure_ascii=False)
    for character, code in _UNSAFE.items():
        data = data.replace(character, code)
    template = files("sknoisy._review").joinpath("report.html").read_text(encoding="utf-8")
    # In one pass: a text may hold what looks like a place of the template.
    places = {"title": escape(title), "summary": summary_html(issues), "data": data}
    return re.sub(r"\{\{(\w+)\}\}", lambda place: places[place[1]], template)


def _rows(issues: Any, contents: Contents, shown: np.ndarray) -> list[dict[str, Any]]:
    """Return what the page shows of each row."""
    labels, nearest = issues._y, issues.nearest_of(shown)
    rows = []
    for rank in shown.tolist():
        row = int(issues.indices[rank])
        rows.append(
            {
                "row": row,
                "observed": str(issues.observed_labels[rank : rank + 1].tolist()[0]),
                "suggested": str(issues.suggested_labels[rank : rank + 1].tolist()[0]),
                "quality": float(issues.quality[rank]),
                "suggestedProba": float(issues.suggested_proba[rank]),
                **_content(contents, row),
                "nearest": [
                    {"row": near, "label": str(labels[near]), **_content(contents, near)}
                    for near in nearest[rank].tolist()
                    if near >= 0
                ],
            }
        )
    return rows


def _content(contents: Contents, row: int) -> dict[str, Any]:
    """Return text, picture or features of a row; the features that come first."""
    return {
        "text": contents.text(row),
        "picture": contents.picture(row),
        "features": contents.features(row)[:_MOST_FEATURES],
    }
