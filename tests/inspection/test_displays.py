import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import TrainingCurveDisplay, TransitionMatrixDisplay
from sknoisy.noise import pair_transition, random_transition, uniform_transition

X, y = make_blobs(200, centers=[[0, 0], [4, 0], [2, 3.5]], random_state=0)
names = np.array(["cat", "dog", "lynx"])[y]


@pytest.fixture(scope="module")
def fitted():
    params = {"max_epochs": 8, "early_stopping": True, "select_noise_model": False}
    return NoisyLabelClassifier(noise_model="c", random_state=0, **params).fit(X, names)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def test_estimator_and_pipeline_show_their_matrix_and_classes(fitted):
    display = TransitionMatrixDisplay.from_estimator(fitted)
    np.testing.assert_allclose(display.im_.get_array(), fitted.transition_matrix_, rtol=1e-6)
    assert [t.get_text() for t in display.ax_.get_yticklabels()] == ["cat", "dog", "lynx"]
    assert display.ax_.get_xlabel() == "Observed label"
    assert display.ax_.get_ylabel() == "True label"
    assert display.figure_ is display.ax_.figure
    pipeline = make_pipeline(StandardScaler(), fitted)
    again = TransitionMatrixDisplay.from_estimator(pipeline, display_labels=["a", "b", "c"])
    assert [t.get_text() for t in again.ax_.get_xticklabels()] == ["a", "b", "c"]


def test_rows_are_true_classes_and_numbers_are_where_they_belong():
    display = TransitionMatrixDisplay.from_matrix(pair_transition(3, 0.4))
    written = [[text.get_text() for text in row] for row in display.text_]
    assert written == [["0.60", "0.40", ""], ["", "0.60", "0.40"], ["0.40", "", "0.60"]]
    assert display.text_[0, 1].get_position() == (1, 0)
    assert display.text_[0, 1].get_color() == "k"
    light = TransitionMatrixDisplay.from_matrix(pair_transition(3, 0.1)).text_
    assert light[0, 0].get_color() == "w"


@pytest.mark.parametrize(("n_classes", "with_values"), [(2, True), (10, True), (100, False)])
def test_labels_and_numbers_do_not_overlap(n_classes, with_values):
    labels = [f"class {i}" for i in range(n_classes)]
    display = TransitionMatrixDisplay.from_matrix(
        random_transition(n_classes, 0.4, random_state=0), display_labels=labels
    )
    display.figure_.canvas.draw()
    assert (display.text_ is not None) == with_values
    axes = display.ax_
    for ticks, side in ((axes.get_xticklabels(), "x"), (axes.get_yticklabels(), "y")):
        boxes = [getattr(tick.get_window_extent(), f"interval{side}") for tick in ticks]
        low, high = np.sort(np.sort(boxes, axis=1), axis=0).T
        assert np.all(high[:-1] <= low[1:])
    if with_values:
        cell = axes.get_window_extent().width / n_classes
        assert max(t.get_window_extent().width for t in display.text_.flat) < cell


@pytest.mark.parametrize(("n_classes", "step"), [(100, 5), (2000, 100)])
def test_many_classes_are_labelled_at_round_numbers(n_classes, step):
    display = TransitionMatrixDisplay.from_matrix(uniform_transition(n_classes, 0.4))
    labels = [t.get_text() for t in display.ax_.get_xticklabels()]
    assert labels == [str(i) for i in range(0, n_classes, step)]


def test_options_reach_matplotlib():
    _, axes = plt.subplots()
    display = TransitionMatrixDisplay.from_matrix(
        np.eye(2), ax=axes, cmap="Reds", colorbar=False, values_format=".1%",
        xticks_rotation=30, im_kw={"alpha": 0.5}, text_kw={"size": 5},
    )  # fmt: skip
    assert display.ax_ is axes and len(display.figure_.axes) == 1
    assert display.im_.get_cmap().name == "Reds" and display.im_.get_alpha() == 0.5
    assert display.text_[0, 0].get_text() == "100.0%" and display.text_[0, 0].get_size() == 5
    assert display.ax_.get_xticklabels()[0].get_rotation() == 30


def test_plot_draws_again():
    display = TransitionMatrixDisplay.from_matrix(np.eye(2))
    first = display.ax_
    assert display.plot(include_values=False) is display
    assert display.ax_ is not first and display.text_ is None


def test_curves_are_those_of_the_history_stage_by_stage(fitted):
    display = TrainingCurveDisplay.from_estimator(fitted)
    stages = [text.get_text() for text in display.text_]
    assert stages == ["baseline", "start", "s-model", "c-model"]
    drawn = np.concatenate([line.get_ydata() for line in display.lines_["train"]])
    np.testing.assert_array_equal(drawn, fitted.history_[:, "train_loss"])
    epochs = np.concatenate([line.get_xdata() for line in display.lines_["valid"]])
    np.testing.assert_array_equal(epochs, np.arange(1, fitted.n_iter_ + 1))
    assert display.lines_["train"][1].get_linestyle() == "None"
    first = display.ax_
    assert display.plot().ax_ is not first


def test_curves_without_held_out_rows():
    _, axes = plt.subplots()
    display = TrainingCurveDisplay(stage=["s", "s"], train_loss=[2.0, 1.0]).plot(
        ax=axes, line_kw={"color": "r"}
    )
    assert display.ax_ is axes and list(display.lines_) == ["train"]
    assert axes.get_legend() is None and display.lines_["train"][0].get_color() == "r"


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: TransitionMatrixDisplay.from_matrix([[0.5, 0.4], [0, 1]]), ValueError, "sum to"),
        (
            lambda: TransitionMatrixDisplay.from_matrix(np.eye(2), display_labels=["a"]),
            ValueError,
            "`display_labels` must name the 2 classes of the matrix; got 1",
        ),
        (
            lambda: TransitionMatrixDisplay.from_estimator(NoisyLabelClassifier()),
            NotFittedError,
            "not fitted",
        ),
        (
            lambda: TrainingCurveDisplay.from_estimator(LogisticRegression()),
            TypeError,
            "got LogisticRegression",
        ),
        (
            lambda: TrainingCurveDisplay(stage=["s"], train_loss=[1, 2]).plot(),
            ValueError,
            "inconsistent numbers of samples",
        ),
    ],
)
def test_refusals(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_matplotlib_is_imported_only_when_something_is_drawn():
    code = "import sys, sknoisy.inspection; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
