"""The table of label issues, and what labelling tools import."""

import base64
import csv
import json
import pickle
import zlib
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from sknoisy._review.contents import Contents, png_address
from sknoisy.inspection import LabelIssues, apply_corrections, find_label_issues

N, K = 120, 3
true = np.arange(N) % K
observed = true.copy()
observed[:12] = (observed[:12] + 1) % K
NAMES = np.array(["b", "<i>&", "z"])
random = np.random.RandomState(0)
proba = np.full((N, K), 0.02)
proba[np.arange(N), true] = 0.96
proba = proba + 0.01 * random.uniform(size=proba.shape)
proba /= proba.sum(axis=1, keepdims=True)
X = 10.0 * np.eye(K)[true] + random.normal(size=(N, K))


def found(X, y=NAMES[observed]):
    return find_label_issues(None, X, y, pred_proba=proba, classes=NAMES)


@pytest.fixture(scope="module")
def issues():
    return found(X)


def test_a_row_for_each_issue_with_all_that_a_reviewer_needs(issues):
    frame = issues.frame
    assert isinstance(issues, LabelIssues) and len(frame) == issues.count > 8
    np.testing.assert_array_equal(frame.index, issues.indices)
    np.testing.assert_array_equal(frame["row"], issues.indices)
    np.testing.assert_array_equal(frame["observed_labels"], NAMES[observed[issues.indices]])
    np.testing.assert_array_equal(frame["suggested_labels"], NAMES[true[issues.indices]])
    assert np.all(frame["quality"] + frame["suggested_proba"] <= 1 + 1e-12)
    assert frame["suggested_proba"].min() > 0.8


def test_evidence_are_the_nearest_rows_that_are_labelled_as_suggested(issues):
    for rank, row in enumerate(issues.indices):
        trusted = np.flatnonzero(
            (NAMES[observed] == issues.suggested_labels[rank]) & (issues.all_quality > 0.5)
        )
        trusted = np.setdiff1d(trusted, issues.indices)
        distance = np.linalg.norm(X[trusted] - X[row], axis=1)
        np.testing.assert_array_equal(issues.nearest[rank], trusted[np.argsort(distance)[:2]])


def test_evidence_of_scaled_columns_sparse_rows_and_pictures(issues):
    np.testing.assert_array_equal(found(csr_array(X)).nearest, issues.nearest)
    np.testing.assert_array_equal(found(X.reshape(N, 1, K)).nearest, issues.nearest)
    frame = pd.DataFrame(X / X.std(axis=0), columns=list("uvw")).assign(note="text")
    scaled = frame.assign(u=1e6 * frame["u"])
    np.testing.assert_array_equal(found(scaled).nearest, found(frame).nearest)


def test_no_evidence_where_there_is_none():
    y = NAMES[observed].copy()
    contents = Contents(X)
    rows = np.array([0, 1])
    none = contents.nearest(rows, np.array([0, 2]), observed, observed == 0, proba)
    assert (none[1] == -1).all() and (none[0] >= 0).all()
    assert len(y) == N


@pytest.mark.parametrize("kind", ["text", "path"])
def test_texts_and_paths_are_in_the_table(kind):
    values = [f"row {i}{'.png' if kind == 'path' else ''}" for i in range(N)]
    for given in (values, np.array(values), pd.Series(values)):
        frame = found(given).frame
        assert frame[kind].tolist() == [values[row] for row in frame["row"]]


def test_columns_of_strings_are_in_the_table_with_the_index_of_the_data():
    index = [f"r{i}" for i in range(N)]
    data = pd.DataFrame({"x": X[:, 0], "title": [f"t{i}" for i in range(N)]}, index=index)
    frame = found(data, pd.Series(NAMES[observed], index=index)).frame
    assert frame.index.tolist() == [f"r{row}" for row in frame["row"]]
    assert frame["title"].tolist() == [f"t{row}" for row in frame["row"]]
    assert "x" not in frame


def test_without_rows_there_are_positions():
    issues = found(None)
    assert issues.contents.kind == "nothing"
    assert issues.nearest.min() >= 0  # by the probabilities
    assert "row" in issues.frame


def test_a_file_that_is_filled_in_goes_back(issues, tmp_path):
    path = tmp_path / "issues.csv"
    issues.to_csv(path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_array_equal(apply_corrections(NAMES[observed], path), NAMES[observed])
    table = pd.read_csv(path)
    table["label"] = table["suggested_labels"]
    corrected = apply_corrections(NAMES[observed], table)
    np.testing.assert_array_equal(corrected[issues.indices], NAMES[true[issues.indices]])
    assert len(rows) == issues.count


def test_tasks_of_label_studio_match_their_interface(issues, tmp_path):
    """The structure of https://labelstud.io/guide/predictions."""
    issues.to_label_studio(tmp_path / "tasks.json")
    tasks = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    view = ElementTree.fromstring(issues.label_studio_config())
    (control,) = view.iter("Choices")
    assert view.tag == "View" and control.get("toName") == view[0].get("name")
    allowed = {choice.get("value") for choice in control}
    assert allowed == set(NAMES)
    assert len(tasks) == issues.count
    for task, row in zip(tasks, issues.indices, strict=True):
        assert set(task) == {"data", "predictions"}
        assert view[0].get("value")[1:] in task["data"] and task["data"]["row"] == row
        (prediction,) = task["predictions"]
        assert set(prediction) == {"model_version", "score", "result"}
        assert 0 <= prediction["score"] <= 1
        (result,) = prediction["result"]
        assert (result["from_name"], result["to_name"]) == (
            control.get("name"),
            view[0].get("name"),
        )
        assert result["type"] == "choices" and set(result["value"]["choices"]) < allowed


def test_the_export_of_label_studio_goes_back(issues, tmp_path):
    """It has a column for each key of the data, and one for each control tag."""
    issues.to_label_studio(tmp_path / "tasks.json")
    tasks = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    exported = pd.DataFrame([task["data"] for task in tasks])
    exported["label"] = [t["predictions"][0]["result"][0]["value"]["choices"][0] for t in tasks]
    exported.to_csv(tmp_path / "export.csv", index=False)
    corrected = apply_corrections(NAMES[observed], tmp_path / "export.csv")
    np.testing.assert_array_equal(corrected[issues.indices], NAMES[true[issues.indices]])


@pytest.mark.parametrize("kind", ["features", "text", "picture"])
def test_records_of_argilla(kind, tmp_path):
    """The structure that ``rg.Record.from_dict`` of Argilla 2 reads."""
    rows = {
        "features": X,
        "text": [f"text {i}" for i in range(N)],
        "picture": random.uniform(size=(N, 4, 4)),
    }[kind]
    issues = found(rows)
    issues.to_argilla(tmp_path / "records.json")
    records = json.loads((tmp_path / "records.json").read_text(encoding="utf-8"))
    assert len(records) == issues.count
    for record, row in zip(records, issues.indices, strict=True):
        assert set(record) == {"id", "fields", "metadata", "suggestions", "responses", "vectors"}
        assert record["id"] == str(row) and record["metadata"]["row"] == row
        (field,) = record["fields"].items()
        assert field[0] == ("image" if kind == "picture" else "text")
        assert isinstance(field[1], str)
        assert set(record["suggestions"]) == {"label"}
        suggestion = record["suggestions"]["label"]
        assert set(suggestion) == {"value", "score", "agent"} and suggestion["value"] in NAMES


def test_a_summary_in_a_notebook_is_escaped(issues):
    markup = issues._repr_html_()
    assert "<i>" not in markup and "&lt;i&gt;&amp;" in markup
    assert f"{issues.count} of {N} labels are probably wrong" in markup
    assert f"{issues.count} of {N} labels" in repr(issues)


def test_issues_are_a_dictionary_and_can_be_kept(issues):
    kept = pickle.loads(pickle.dumps(issues))
    pd.testing.assert_frame_equal(kept.frame, issues.frame)
    np.testing.assert_array_equal(kept["indices"], issues["indices"])
    assert kept.count == issues["count"]


def decoded(address):
    """Return the pixels of a PNG address whose lines have no filter."""
    data = base64.b64decode(address.split(",")[1])
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    start = data.index(b"IDAT") + 4
    length = int.from_bytes(data[start - 8 : start - 4], "big")
    lines = zlib.decompress(data[start : start + length])
    pixels = np.frombuffer(lines, np.uint8).reshape(height, -1)
    assert not pixels[:, 0].any()
    return pixels[:, 1:].reshape(height, width, -1)


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1), (3, 5, 3), (3, 5, 4), (3, 6, 5)])
def test_pictures_keep_their_pixels(shape):
    picture = random.randint(256, size=shape, dtype=np.uint8)
    expected = picture if picture.ndim == 3 else picture[:, :, None]
    expected = expected if shape != (3, 6, 5) else np.moveaxis(picture, 0, -1)
    np.testing.assert_array_equal(decoded(png_address(picture)), expected)


def test_pictures_of_numbers_are_scaled_to_their_range():
    pixels = decoded(png_address(np.array([[-1.0, 0.0], [1.0, 3.0]])))
    np.testing.assert_array_equal(pixels[:, :, 0], [[0, 64], [128, 255]])
    assert not decoded(png_address(np.full((2, 2), 7.0))).any()


def test_pictures_from_files_are_part_of_the_report(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(N)]
    address = png_address(np.zeros((2, 2), dtype=np.uint8))
    for path in paths:
        path.write_bytes(base64.b64decode(address.split(",")[1]))
    paths[-1].unlink()
    contents = Contents([str(path) for path in paths])
    assert contents.kind == "path" and contents.picture(0) == address
    assert contents.picture(N - 1) is None and contents.text(N - 1) == str(paths[-1])
