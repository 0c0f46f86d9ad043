"""Callbacks of skorch in every stage, callbacks of scikit-learn over all of them."""

import io
import re

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.callback import ProgressBar as ProgressTree
from sklearn.callback import ScoringMonitor
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    Freezer,
    GradientNormClipping,
    LRScheduler,
    PrintLog,
    ProgressBar,
)

from sknoisy import NoisyLabelClassifier
from sknoisy.metrics import noise_corrected_accuracy_scorer, noisy_log_likelihood_scorer


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    keep = y < 3
    return (X[keep] / 16).astype("float32"), y[keep]


def quick(**params):
    return NoisyLabelClassifier(**{"max_epochs": 3, "random_state": 0} | params)


SEEN = []


class Recorder(Callback):
    """Write down what is heard, and how much this copy has heard before."""

    def __init__(self, label=""):
        self.label = label
        self.epochs_ = []

    def on_train_begin(self, net, **kwargs):
        SEEN.append((self.label, "begin", len(self.epochs_), id(net)))

    def on_epoch_end(self, net, **kwargs):
        self.epochs_.append(net.history[-1, "stage"])

    def on_train_end(self, net, X, y, **kwargs):
        SEEN.append((self.label, tuple(self.epochs_), len(X), len(y)))


@pytest.fixture(autouse=True)
def forget():
    SEEN.clear()


# --- skorch -------------------------------------------------------------------------------------


def test_each_stage_gets_callbacks_of_its_own(digits):
    recorder = Recorder()
    classifier = quick(
        noise_model="c", early_stopping=True, select_noise_model=False, callbacks=[recorder]
    )
    classifier.fit(*digits)
    stages = [epochs for _, epochs, *_ in SEEN if epochs != "begin"]
    names = [set(epochs) for epochs in stages]
    assert names[:1] + names[-2:] == [{"baseline"}, {"s"}, {"c"}]
    assert names[1:-2] == [{"start"}] * len(names[1:-2])
    assert sum(map(len, stages)) == classifier.n_iter_
    assert all(heard == 0 for _, event, heard, _ in SEEN if event == "begin")


@pytest.mark.parametrize(
    "callbacks",
    [[Recorder()], [("recorder", Recorder())], [Recorder], [Recorder("a"), Recorder("b")]],
    ids=["instance", "named", "class", "two"],
)
def test_nothing_leaks_into_the_given_callbacks_or_from_fold_to_fold(callbacks, digits):
    classifier = quick(callbacks=callbacks, noise_model=None)
    cross_val_score(classifier, *digits, cv=2)
    classifier.fit(*digits)
    classifier.fit(*digits)
    assert all(heard == 0 for _, event, heard, _ in SEEN if event == "begin")
    for item in callbacks:
        callback = item[1] if isinstance(item, tuple) else item
        assert not vars(callback).get("epochs_")
        assert not hasattr(callback, "initialized_")


def test_a_callback_given_by_name_is_copied_as_well(digits):
    replacement = Recorder("new")
    classifier = quick(callbacks=[("recorder", Recorder("old"))], callbacks__recorder=replacement)
    classifier.fit(*digits)
    assert {label for label, *_ in SEEN} == {"new"}
    assert all(heard == 0 for _, event, heard, _ in SEEN if event == "begin")
    assert replacement.epochs_ == []


def test_a_callback_that_cannot_be_copied_deeply_shares_what_it_holds(digits):
    class Writer(Callback):
        def __init__(self, file):
            self.file = file

        def on_train_begin(self, net, **kwargs):
            self.began = True

        def on_epoch_end(self, net, **kwargs):
            self.file[1].write(net.history[-1, "stage"] + "\n")

    open_file = io.StringIO()
    writer = Writer([iter_once(), open_file])  # a generator cannot be copied
    quick(noise_model=None, callbacks=[writer], early_stopping=True).fit(*digits)
    assert open_file.getvalue().split() == ["baseline"] * 3
    assert not hasattr(writer, "began")


def iter_once():
    yield


@pytest.mark.parametrize("use_caching", [True, False])
def test_scores_of_an_epoch_are_of_the_true_label(use_caching, digits):
    X, y = digits
    names = np.array(["ant", "bee", "cow"])
    scores = [
        EpochScoring(scoring, on_train=True, name=scoring, use_caching=use_caching)
        for scoring in ("accuracy", "neg_log_loss")
    ]
    classifier = quick(callbacks=scores, early_stopping=False, batch_size=len(X))
    classifier.fit(X, names[y])
    last = classifier.history_[-1]
    if use_caching:  # of the weights before the step
        assert 0 < last["accuracy"] <= 1
        assert last["neg_log_loss"] < 0
    else:
        proba = classifier.predict_proba(X)
        assert last["accuracy"] == pytest.approx(accuracy_score(y, proba.argmax(axis=1)))
        assert last["neg_log_loss"] == pytest.approx(-log_loss(y, proba), abs=1e-4)
    assert "accuracy" in classifier.history_[0]


@pytest.mark.parametrize("noise_model", [None, "s", "c"])
def test_scores_of_held_out_rows(noise_model, digits):
    score = EpochScoring("accuracy", lower_is_better=False, name="valid_acc")
    classifier = quick(noise_model=noise_model, callbacks=[score], early_stopping=True)
    classifier.fit(*digits)
    assert all(0 <= value <= 1 for value in classifier.history_[:, "valid_acc"])
    assert "valid_acc_best" in classifier.history_[0]


def test_learning_rates_follow_a_schedule_that_starts_anew_in_each_stage(digits):
    schedule = LRScheduler("StepLR", step_size=1, gamma=0.1, event_name="event_lr")
    classifier = quick(
        callbacks=[schedule], lr=0.01, early_stopping=True, select_noise_model=False
    ).fit(*digits)
    rates = {}
    for stage, rate in classifier.history_[:, ("stage", "event_lr")]:
        rates.setdefault(stage, []).append(rate)
    np.testing.assert_allclose(rates["baseline"], [1e-2, 1e-3, 1e-4])
    np.testing.assert_allclose(rates["s"], [1e-2, 1e-3, 1e-4])


def test_gradients_are_clipped_before_the_step(digits):
    class Norm(Callback):
        def on_grad_computed(self, net, named_parameters, **kwargs):
            pairs = list(named_parameters)
            total = torch.cat([p.grad.flatten() for _, p in pairs if p.grad is not None]).norm()
            SEEN.append(total.item())

    clip = GradientNormClipping(1e-3)
    quick(callbacks=[("a", clip), ("b", Norm())], optimizer=torch.optim.SGD).fit(*digits)
    assert SEEN
    assert max(SEEN) <= 1e-3 * (1 + 1e-3)


def test_skorch_stops_a_stage_early_and_the_next_one_still_runs(digits):
    stop = EarlyStopping("train_loss", patience=2, threshold=100.0, threshold_mode="abs", sink=str)
    classifier = quick(max_epochs=20, callbacks=[stop], early_stopping=True).fit(*digits)
    stages = classifier.history_[:, "stage"]
    assert 2 <= stages.count("baseline") < 20
    assert 2 <= stages.count("s") < 20


def test_other_callbacks_of_skorch_work(digits, tmp_path, capsys):
    callbacks = [
        ("bar", ProgressBar(detect_notebook=False)),
        ("frozen", Freezer("1.*")),
        ("checkpoint", Checkpoint(monitor=None, dirname=str(tmp_path), f_pickle=None)),
    ]
    classifier = quick(callbacks=callbacks).fit(*digits)
    assert classifier.predict(digits[0]).shape == digits[1].shape
    assert (tmp_path / "params.pt").exists()


@pytest.mark.parametrize("item", [3, "EpochScoring", object, ("name", 3), ProgressTree])
def test_what_is_no_callback_is_refused(item, digits):
    with pytest.raises(ValueError, match=r"`callbacks` must hold skorch callbacks.*set_callbacks"):
        quick(callbacks=[item]).fit(*digits)


def test_callbacks_that_are_no_list_are_refused(digits):
    with pytest.raises(ValueError, match="The 'callbacks' parameter"):
        quick(callbacks=EpochScoring("accuracy")).fit(*digits)


def test_two_callbacks_of_one_name_are_refused(digits):
    with pytest.raises(ValueError, match="duplicate"):
        quick(callbacks=[("a", Recorder()), ("a", Recorder())]).fit(*digits)


# --- The printed table --------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [False, True])
def test_verbose_prints_one_table_with_the_stage_next_to_the_epoch(batches, digits, capsys):
    callbacks = [GradientNormClipping(1.0)] if batches else None
    classifier = quick(
        verbose=1, noise_model="c", early_stopping=True, max_epochs=5, callbacks=callbacks
    ).fit(*digits)
    lines = capsys.readouterr().out.splitlines()
    notes = [line for line in lines if line.startswith("Start of the noise layer")]
    (note,) = notes
    names = "uniform, calibrated, mixture, confident, hard"
    assert re.fullmatch(rf"Start .*: {names}, in \d+\.\d s\.", note)
    at = lines.index(note)  # the estimates come after the baseline and before they are tried
    assert (lines[at - 1].split()[1], lines[at + 1].split()[1]) == ("baseline", "start")
    lines.remove(note)
    assert lines[0].split() == ["epoch", "stage", "train_loss", "valid_loss", "dur"]
    assert re.fullmatch(r"[- ]+", lines[1])
    assert len({len(line) for line in lines}) == 1
    rows = [line.split() for line in lines[2:]]
    assert [row[0] for row in rows] == [str(i + 1) for i in range(classifier.n_iter_)]
    assert [row[1] for row in rows] == classifier.history_[:, "stage"]


def test_em_prints_its_likelihood(digits, capsys):
    params = {"early_stopping": True, "select_noise_model": False}
    quick(verbose=1, method="em", tol=10.0, **params).fit(*digits)
    out = capsys.readouterr().out
    assert len(re.findall("epoch", out)) == 2  # EM has a column more than the other stages
    assert "log_likelihood" in out


def test_nothing_is_printed_without_verbose(digits, capsys):
    quick().fit(*digits)
    assert capsys.readouterr() == ("", "")


def test_the_table_can_be_sent_elsewhere_or_left_out(digits, capsys):
    quick(verbose=1, callbacks__print_log=None).fit(*digits)
    assert capsys.readouterr().out == ""
    lines = []
    quick(verbose=1, callbacks__print_log__sink=lines.append).fit(*digits)
    assert capsys.readouterr().out == ""
    assert "stage" in lines[0]
    quick(callbacks=[PrintLog(sink=lines.append, keys_ignored="stage")], verbose=1).fit(*digits)
    assert "stage" not in lines[-10]


# --- scikit-learn -------------------------------------------------------------------------------


class Tasks:
    """Write down the tasks of a fit."""

    max_propagation_depth = None

    def __init__(self, stop=None):
        self.stop = stop

    def setup(self, estimator, context):
        SEEN.append("setup")

    def teardown(self, estimator, context):
        SEEN.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        SEEN.append(("begin", context.task_name, context.max_subtasks))

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None, X=None):
        SEEN.append(("end", context.task_name, fitted_estimator.predict(X).shape))
        return context.task_name == self.stop


def test_stages_and_epochs_are_tasks(digits):
    X, y = digits
    classifier = quick(noise_model="c", early_stopping=True, transition_init="confusion")
    classifier.set_params(select_noise_model=False)
    classifier.set_callbacks(Tasks()).fit(X, y)
    assert SEEN[0] == "setup"
    assert SEEN[-1] == "teardown"
    stages = [name for event, name, n in SEEN[1:-1] if event == "begin" and n == 3]
    assert stages == ["baseline", "s", "c"]
    assert SEEN.count(("begin", "epoch", 0)) == 9
    assert SEEN.count(("end", "epoch", y.shape)) == 9
    assert SEEN[-2] == ("end", "fit", y.shape)


def test_a_callback_can_end_a_stage(digits):
    classifier = quick(noise_model=None, early_stopping=True)
    classifier.set_callbacks(Tasks(stop="epoch")).fit(*digits)
    assert classifier.n_iter_ == 1


def test_a_fit_is_the_same_with_callbacks_that_score(digits):
    X, y = digits
    scoring = {
        "likelihood": noisy_log_likelihood_scorer,
        "corrected": noise_corrected_accuracy_scorer,
        "accuracy": "accuracy",
    }
    monitor = ScoringMonitor(scoring=scoring)
    params = {"noise_model": "c", "early_stopping": True, "dropout": 0.3}
    classifier = quick(**params).set_callbacks(monitor).fit(X, y)
    log = monitor.get_logs().data_as_pandas
    assert np.isfinite(log[list(scoring)]).all(axis=None)
    assert (log["task_name"] == "epoch").sum() == classifier.n_iter_
    last = log.iloc[0]
    assert last["accuracy"] == pytest.approx(classifier.score(X, y))
    assert last["likelihood"] == pytest.approx(noisy_log_likelihood_scorer(classifier, X, y))
    expected = quick(**params).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(classifier.predict_proba(X), expected)


def test_a_grid_search_shows_one_tree_of_progress_bars(digits, capsys, monkeypatch):
    monkeypatch.setenv("LINES", "100")  # rich cuts off what does not fit into a terminal
    monkeypatch.setenv("COLUMNS", "120")
    classifier = quick(early_stopping=True, select_noise_model=False)
    search = GridSearchCV(classifier, {"noise_model": ["s", None]}, cv=2)
    search.set_callbacks(ProgressTree()).fit(*digits)
    out = capsys.readouterr().out
    assert "GridSearchCV - fit" in out
    assert out.count("NoisyLabelClassifier - b") == 5  # four candidates and splits, one refit
    assert out.count("NoisyLabelClassifier - s #") >= 2


def test_a_monitor_in_a_grid_search_hears_every_fit(digits):
    monitor = ScoringMonitor(scoring="accuracy")
    search = GridSearchCV(quick().set_callbacks(monitor), {"noise_model": ["s", None]}, cv=2)
    search.fit(*digits)
    log = monitor.get_logs(include_lineage=True).data_as_pandas
    assert (log["task_name"] == "epoch").sum() >= 4 * 3
    assert {"GridSearchCV", "NoisyLabelClassifier"} <= set(log["estimator_name"])


def test_callbacks_are_torn_down_when_a_fit_fails(digits):
    X, y = digits
    classifier = quick(lr=1e30).set_callbacks(Tasks())
    with pytest.raises(ValueError, match="loss became"):
        classifier.fit(X * 1e8, y)
    assert SEEN[-1] == "teardown"
    clone(classifier).set_params(lr=1e-3).fit(X, y)


def test_a_callback_of_skorch_is_refused_where_those_of_scikit_learn_go():
    with pytest.raises(TypeError, match="FitCallback"):
        quick().set_callbacks(EpochScoring("accuracy"))
