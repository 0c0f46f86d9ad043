"""Import formats of labelling tools."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import quoteattr

_AGENT = "sknoisy"

#: What a task shows, by the kind of contents: name of the field, and the tag of Label Studio.
_FIELDS = {
    "text": ("text", "Text"),
    "path": ("image", "Image"),
    "picture": ("image", "Image"),
}


def label_studio_tasks(issues: Any) -> list[dict[str, Any]]:
    """Return tasks in Label Studio's JSON format, with predictions.

    The format is documented on https://labelstud.io/guide/predictions: an object ``data`` with what
    is shown, and a list ``predictions`` whose results name the tags of the labelling interface.
    """
    tasks = []
    for rank, record in enumerate(_records(issues)):
        choice = {
            "id": f"row-{record['row']}",
            "from_name": "label",
            "to_name": "item",
            "type": "choices",
            "value": {"choices": [record["suggested_labels"]]},
        }
        prediction = {
            "model_version": _AGENT,
            "score": float(issues.suggested_proba[rank]),
            "result": [choice],
        }
        field, _ = _field(issues)
        data: dict[str, Any] = {field: _shown(issues, record["row"]), **record}
        tasks.append({"data": data, "predictions": [prediction]})
    return tasks


def label_studio_config(issues: Any) -> str:
    """Return the labelling interface that the tasks are made for."""
    field, tag = _field(issues)
    choices = "\n".join(f"    <Choice value={quoteattr(str(c))}/>" for c in issues.classes.tolist())
    return (
        f'<View>\n  <{tag} name="item" value="${field}"/>\n'
        f'  <Choices name="label" toName="item" choice="single" showInline="true">\n{choices}\n'
        "  </Choices>\n</View>\n"
    )


def argilla_records(issues: Any) -> list[dict[str, Any]]:
    """Return records as ``dataset.records.from_json`` of Argilla 2 reads them.

    The format is that of ``rg.Record.from_dict``: fields and metadata by name, suggestions by the
    name of the question with value, score and agent.
    """
    field = "image" if issues.contents.kind in ("path", "picture") else "text"
    return [
        {
            "id": str(record["row"]),
            "fields": {field: _as_text(_shown(issues, record["row"]))},
            "metadata": {
                "row": record["row"],
                "observed_labels": record["observed_labels"],
                "quality": record["quality"],
            },
            "suggestions": {
                "label": {
                    "value": record["suggested_labels"],
                    "score": float(issues.suggested_proba[rank]),
                    "agent": _AGENT,
                }
            },
            "responses": {},
            "vectors": {},
        }
        for rank, record in enumerate(_records(issues))
    ]


def _records(issues: Any) -> list[dict[str, Any]]:
    """Return what identifies and explains each issue, in types that JSON has."""
    pairs = zip(
        issues.indices.tolist(),
        issues.observed_labels.tolist(),
        issues.suggested_labels.tolist(),
        issues.quality.tolist(),
        issues.nearest.tolist(),
        strict=True,
    )
    return [
        {
            "row": row,
            "observed_labels": str(observed),
            "suggested_labels": str(suggested),
            "quality": quality,
            "nearest": [near for near in nearest if near >= 0],
        }
        for row, observed, suggested, quality, nearest in pairs
    ]


def _field(issues: Any) -> tuple[str, str]:
    return _FIELDS.get(issues.contents.kind, ("features", "Table"))


def _shown(issues: Any, row: int) -> Any:
    contents = issues.contents
    if contents.kind == "picture":
        return contents.picture(row)
    if contents.kind in ("text", "path"):
        return contents.text(row)
    return dict(contents.features(row)) or {"row": str(row)}


def _as_text(shown: Any) -> str:
    if isinstance(shown, dict):
        return "\n".join(f"{name}: {value}" for name, value in shown.items())
    return str(shown)
