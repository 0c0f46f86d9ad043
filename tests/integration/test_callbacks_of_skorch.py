"""Every callback of skorch by itself, with and without held-out rows, in every kind of fit."""

import glob
import inspect
import json
import sys
import types

import numpy as np
import pytest
import skorch.callbacks
import torch
from numpy.testing import assert_array_equal
from sklearn.datasets import make_classification
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    EpochTimer,
    Freezer,
    GradientNormClipping,
    Initializer,
    InputShapeSetter,
    LoadInitState,
    LRScheduler,
    MlflowLogger,
    NeptuneLogger,
    ParamMapper,
    PassthroughScoring,
    PrintLog,
    ProgressBar,
    SacredLogger,
    TensorBoard,
    TrainEndCheckpoint,
    Unfreezer,
    WandbLogger,
)
from torch import nn

from sknoisy import NoisyLabelClassifier
from sknoisy.noise import uniform_transition

X, y = make_classification(
    200, 8, n_informative=5, n_classes=3, n_clusters_per_class=1, random_state=0
)
X = X.astype("float32")
#: Of two classes fewer starts are tried, in the same stages.
TWO_CLASSES = np.minimum(y, 1)


#: One start, and a noise model that is taken for granted, so that the stage trained last is kept.
ONE_STAGE_OF_EACH = {"select_noise_model": False, "transition_init": uniform_transition(3, 0.2)}


def fit(callback, kind="s", held_out=True, y=y, **params):
    """Fit with one callback and nothing else."""
    params = {"early_stopping": held_out, "max_epochs": 3, "random_state": 0} | params
    classifier = NoisyLabelClassifier(callbacks=[callback], **params)
    if kind == "stream":
        return classifier.partial_fit(X, y, classes=np.unique(y)).partial_fit(X, y)
    if kind == "em":
        return classifier.set_params(method="em", max_em_iter=3, tol=10.0).fit(X, y)
    return classifier.set_params(noise_model=kind).fit(X, y)


# --- Stubs of servers, as strict as they are ----------------------------------------------------


class Series:
    def __init__(self, run, name):
        self.run, self.name = run, name

    def __getitem__(self, name):
        return Series(self.run, f"{self.name}/{name}")

    def __setitem__(self, name, value):
        self.run[f"{self.name}/{name}"] = value

    def append(self, value):
        assert not self.run.stopped
        values = value if isinstance(value, list) else [value]
        self.run.series.setdefault(self.name, []).extend(map(float, values))


class NeptuneRun:
    """Takes numbers in series, and nothing once it is stopped."""

    def __init__(self):
        self.series, self.fields, self.stopped = {}, {}, 0

    def __getitem__(self, name):
        return Series(self, name)

    def __setitem__(self, name, value):
        assert not self.stopped
        self.fields[name] = value

    def stop(self):
        self.stopped += 1


class MlflowClient:
    """Takes numbers as metrics, and files that are there."""

    def __init__(self):
        self.metrics, self.artifacts, self.terminated = {}, [], 0

    def log_metric(self, run_id, key, value, step=None):
        assert not self.terminated
        self.metrics.setdefault(key, []).append(float(value))

    def log_artifact(self, run_id, path):
        assert not self.terminated
        self.artifacts.append((path.name, path.stat().st_size))

    def set_terminated(self, run_id):
        self.terminated += 1


class WandbRun:
    def __init__(self, folder):
        self.dir, self.rows = str(folder), []

    def watch(self, module):
        assert isinstance(module, nn.Module)

    def log(self, row):
        self.rows.append(row)


class SacredRun:
    def __init__(self):
        self.scalars = {}

    def log_scalar(self, name, value, step=None):
        self.scalars.setdefault(name, []).append(float(value))


class Notebook:
    """What a logger writes to, once, in fits that copy callbacks as deeply as they can."""

    def __init__(self, held):
        self.held = held

    def __deepcopy__(self, memo):
        return self

    def __getattr__(self, name):
        return getattr(self.held, name)

    def __getitem__(self, name):
        return self.held[name]

    def __setitem__(self, name, value):
        self.held[name] = value


@pytest.fixture(autouse=True)
def neptune(monkeypatch):
    """The two classes that skorch imports from a package that is not installed."""
    handler, kinds = types.ModuleType("neptune.handler"), types.ModuleType("neptune.types")
    handler.Handler = type("Handler", (), {})
    kinds.File = types.SimpleNamespace(from_content=lambda content, extension: content)
    monkeypatch.setitem(sys.modules, "neptune", types.ModuleType("neptune"))
    monkeypatch.setitem(sys.modules, "neptune.handler", handler)
    monkeypatch.setitem(sys.modules, "neptune.types", kinds)


@pytest.fixture
def writer(tmp_path):
    with pytest.MonkeyPatch.context():
        tensorboard = pytest.importorskip("torch.utils.tensorboard")
    return tensorboard.SummaryWriter(str(tmp_path / "board"))


RUN = types.SimpleNamespace(info=types.SimpleNamespace(run_id="1"))


def ones(tensor):
    torch.nn.init.ones_(tensor)


def quiet(text):
    pass


# In the order of skorch.callbacks.__all__; each is made in a folder of its own.
ALONE = {
    "BatchScoring": lambda d: BatchScoring("accuracy", lower_is_better=False),
    "BatchScoring on_train": lambda d: BatchScoring("accuracy", on_train=True, name="acc"),
    "Callback": lambda d: Callback(),
    "Checkpoint none": lambda d: Checkpoint(dirname=d, monitor=None),
    "Checkpoint train": lambda d: Checkpoint(dirname=d, monitor="train_loss_best"),
    "Checkpoint best": lambda d: Checkpoint(dirname=d, monitor="train_loss_best", load_best=True),
    "Checkpoint pickle": lambda d: Checkpoint(dirname=d, monitor=None, f_pickle="net.pkl"),
    "Checkpoint callable": lambda d: Checkpoint(dirname=d, monitor=lambda net: True),
    "Checkpoint names": lambda d: Checkpoint(
        dirname=d, monitor=None, f_params="{last_epoch[epoch]}_{last_epoch[stage]}.pt"
    ),
    "Checkpoint safetensors": lambda d: Checkpoint(
        dirname=d, monitor=None, use_safetensors=True, f_optimizer=None
    ),
    "EarlyStopping train": lambda d: EarlyStopping("train_loss", sink=quiet),
    "EarlyStopping best": lambda d: EarlyStopping("train_loss", patience=1, load_best=True),
    "EpochScoring": lambda d: EpochScoring("accuracy", lower_is_better=False),
    "EpochScoring on_train": lambda d: EpochScoring("neg_log_loss", on_train=True, name="ll"),
    "EpochScoring uncached": lambda d: EpochScoring("accuracy", use_caching=False),
    "EpochTimer": lambda d: EpochTimer(),
    "Freezer": lambda d: Freezer("1.*"),
    "GradientNormClipping": lambda d: GradientNormClipping(1.0),
    "GradientNormClipping none": lambda d: GradientNormClipping(),
    "Initializer": lambda d: Initializer("1.weight", fn=ones),
    "InputShapeSetter": lambda d: InputShapeSetter(),
    "LRScheduler": lambda d: LRScheduler(),
    "LRScheduler batch": lambda d: LRScheduler("StepLR", step_size=3, step_every="batch"),
    "LRScheduler plateau": lambda d: LRScheduler("ReduceLROnPlateau"),
    "LRScheduler one cycle": lambda d: LRScheduler(
        torch.optim.lr_scheduler.OneCycleLR, max_lr=0.01, total_steps=200, step_every="batch"
    ),
    "LoadInitState": lambda d: LoadInitState(Checkpoint(dirname=d)),
    "LoadInitState end": lambda d: LoadInitState(TrainEndCheckpoint(dirname=d).initialize()),
    "MlflowLogger": lambda d: MlflowLogger(
        RUN, Notebook(MlflowClient()), terminate_after_train=False
    ),
    "MlflowLogger batches": lambda d: MlflowLogger(
        RUN, Notebook(MlflowClient()), log_on_batch_end=True, terminate_after_train=False
    ),
    "NeptuneLogger": lambda d: NeptuneLogger(Notebook(NeptuneRun()), close_after_train=False),
    "NeptuneLogger batches": lambda d: NeptuneLogger(
        Notebook(NeptuneRun()), log_on_batch_end=True, close_after_train=False
    ),
    "ParamMapper": lambda d: ParamMapper("*.bias", fn=ones, at=2),
    "PassthroughScoring": lambda d: PassthroughScoring("valid_loss"),
    "PassthroughScoring on_train": lambda d: PassthroughScoring("train_loss", on_train=True),
    "PrintLog": lambda d: PrintLog(sink=quiet),
    "ProgressBar": lambda d: ProgressBar(detect_notebook=False),
    "ProgressBar count": lambda d: ProgressBar("count", detect_notebook=False),
    "SacredLogger": lambda d: SacredLogger(Notebook(SacredRun())),
    "SacredLogger batches": lambda d: SacredLogger(Notebook(SacredRun()), log_on_batch_end=True),
    "TrainEndCheckpoint": lambda d: TrainEndCheckpoint(dirname=d),
    "Unfreezer": lambda d: Unfreezer("1.*"),
    "WandbLogger": lambda d: WandbLogger(Notebook(WandbRun(d)), save_model=False),
}

# What asks for the loss of held-out rows unless it is told otherwise.
HELD_OUT = {
    "Checkpoint": lambda d: Checkpoint(dirname=d),
    "Checkpoint best": lambda d: Checkpoint(dirname=d, load_best=True),
    "EarlyStopping": lambda d: EarlyStopping(sink=quiet),
    "EarlyStopping best": lambda d: EarlyStopping(patience=1, load_best=True, sink=quiet),
    "LRScheduler": lambda d: LRScheduler("ReduceLROnPlateau", monitor="valid_loss"),
    "WandbLogger": lambda d: WandbLogger(Notebook(WandbRun(d))),
}

kinds = pytest.mark.parametrize("kind", ["s", None, "c", "em", "stream"])
#: The c-model goes through plain training and the s-model as well.
longest_kinds = pytest.mark.parametrize(
    "kind", [*(pytest.param(k, marks=pytest.mark.slow) for k in ("s", None)), "c", "em", "stream"]
)


def test_no_callback_of_skorch_is_left_out():
    tested = {name.split()[0] for name in [*ALONE, *HELD_OUT]} | {"TensorBoard"}
    public = {
        name
        for name in skorch.callbacks.__all__
        if inspect.isclass(kind := getattr(skorch.callbacks, name)) and issubclass(kind, Callback)
    }
    assert public <= tested


@longest_kinds
@pytest.mark.parametrize("held_out", [True, False], ids=["held out", "all"])
@pytest.mark.parametrize("make", ALONE.values(), ids=ALONE)
def test_each_callback_works_alone(make, held_out, kind, tmp_path):
    classifier = fit(make(str(tmp_path)), kind, held_out, y=TWO_CLASSES, select_noise_model=False)
    assert np.isfinite(classifier.predict_proba(X)).all()


@longest_kinds
@pytest.mark.parametrize("make", HELD_OUT.values(), ids=HELD_OUT)
def test_what_watches_held_out_rows_works_with_them_and_says_what_to_set_without(
    make, kind, tmp_path
):
    callback = make(str(tmp_path))
    message = rf"`callbacks`: {type(callback).__name__} asks for 'valid_loss.*early_stopping=True"
    if kind != "stream":
        assert np.isfinite(fit(callback, kind, y=TWO_CLASSES).predict_proba(X)).all()
    with pytest.raises(ValueError, match=message):
        fit(make(str(tmp_path)), kind, held_out=False)
    with pytest.raises(ValueError, match=message):
        fit(make(str(tmp_path)), kind, held_out="auto")


@pytest.mark.parametrize("make", [HELD_OUT["Checkpoint"], HELD_OUT["EarlyStopping"]])
def test_what_needs_held_out_rows_is_refused_before_any_training(make, tmp_path):
    class Never(nn.Linear):
        def __init__(self):
            super().__init__(8, 4)

        def forward(self, X):
            assert not self.training
            return super().forward(X)

    with pytest.raises(ValueError, match="no rows are held out"):
        fit(make(str(tmp_path)), held_out=False, module=Never)


class OwnHeldOutRows(Callback):
    """Record a loss of rows that the user holds out."""

    def on_epoch_end(self, net, **kwargs):
        net.history.record("valid_loss", 1.0)


def test_a_callback_may_record_a_held_out_loss_of_its_own():
    stop = EarlyStopping(patience=2, sink=quiet)
    params = {"early_stopping": False, "max_epochs": 9, "noise_model": None}
    callbacks = [OwnHeldOutRows(), stop]
    assert NoisyLabelClassifier(callbacks=callbacks, **params).fit(X, y).n_iter_ == 3
    with pytest.raises(KeyError, match="valid_acc"):
        NoisyLabelClassifier(callbacks=[Missing()], **params | {"early_stopping": True}).fit(X, y)


class Missing(Callback):
    def on_epoch_end(self, net, **kwargs):
        return net.history[-1]["valid_acc"]


# --- What is recorded ---------------------------------------------------------------------------


@pytest.mark.parametrize("callbacks", [None, [GradientNormClipping(1e9)]], ids=["lean", "batches"])
@pytest.mark.parametrize("held_out", [True, False])
def test_the_history_has_batches_whose_mean_is_the_loss(held_out, callbacks):
    params = {"early_stopping": held_out, "max_epochs": 3, "random_state": 0} | ONE_STAGE_OF_EACH
    history = NoisyLabelClassifier(callbacks=callbacks, **params).fit(X, y).history_
    n_rows = {"train": len(X) - 20, "valid": 20} if held_out else {"train": len(X)}
    last = history[-3:]  # the halves of the rows were trained before
    for row in last:
        assert row["stage"] == "s"
        for kind, n in n_rows.items():
            batches = [batch for batch in row["batches"] if f"{kind}_loss" in batch]
            losses, sizes = zip(
                *((b[f"{kind}_loss"], b[f"{kind}_batch_size"]) for b in batches), strict=True
            )
            assert sum(sizes) == n
            assert len(sizes) == row[f"{kind}_batch_count"]
            assert row[f"{kind}_loss"] == pytest.approx(np.average(losses, weights=sizes))
    assert len(history[:, "batches", :, "train_loss"]) == len(history)
    assert (
        history[-1, "batches", 0, "train_batch_size"] == last[-1]["batches"][0]["train_batch_size"]
    )


@pytest.mark.parametrize("kind", ["s", "c", "stream"])
def test_the_best_losses_are_those_below_all_before_in_the_stage(kind):
    history = fit(Callback(), kind, max_epochs=6, lr=0.02, **ONE_STAGE_OF_EACH).history_
    lowest = {}
    for row in history:
        for name in ("train_loss", "valid_loss"):
            if name in row:
                before = lowest.get((row["stage"], name), np.inf)
                if row["stage"] != "start":
                    assert row[f"{name}_best"] is (row[name] < before)
                lowest[row["stage"], name] = min(before, row[name])


@pytest.mark.parametrize("on_train", [True, False])
def test_scores_of_batches_pass_through(on_train):
    name = "train_loss" if on_train else "valid_loss"
    plain = fit(Callback()).history_
    passed = fit(PassthroughScoring(name, on_train=on_train)).history_
    np.testing.assert_allclose(passed[:, name], plain[:, name])
    assert passed[:, f"{name}_best"] == plain[:, f"{name}_best"]


def test_the_callbacks_that_only_look_on_do_not_change_the_fit(tmp_path):
    expected = fit(Callback()).predict_proba(X)
    for name in ("Checkpoint none", "TrainEndCheckpoint", "PrintLog", "PassthroughScoring"):
        assert_array_equal(fit(ALONE[name](str(tmp_path))).predict_proba(X), expected)


@pytest.mark.parametrize("kind", ["s", None])
def test_a_checkpoint_holds_the_best_epoch_of_the_last_stage(kind, tmp_path):
    classifier = fit(Checkpoint(dirname=str(tmp_path)), kind, max_epochs=3, **ONE_STAGE_OF_EACH)
    history = json.loads((tmp_path / "history.json").read_text())
    stage = history[-1]["stage"]
    assert stage == (kind or "baseline")
    losses = [row["valid_loss"] for row in classifier.history_ if row["stage"] == stage]
    assert min(losses) == min(row["valid_loss"] for row in history)
    saved = torch.load(tmp_path / "params.pt", weights_only=True)
    for name, value in classifier.net_.network.state_dict().items():
        torch.testing.assert_close(saved[name], value)  # which early stopping puts back


def test_the_last_checkpoint_holds_what_predicts(tmp_path):
    classifier = fit(TrainEndCheckpoint(dirname=str(tmp_path)), **ONE_STAGE_OF_EACH)
    saved = torch.load(tmp_path / "train_end_params.pt", weights_only=True)
    for name, value in classifier.net_.network.state_dict().items():
        assert torch.equal(saved[name], value)


@pytest.mark.parametrize("held_out", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda d: Checkpoint(dirname=d, monitor="train_loss_best"),
        lambda d: TrainEndCheckpoint(dirname=d).initialize(),
    ],
)
def test_a_saved_state_is_loaded_when_a_fit_without_noise_begins(make, held_out, tmp_path):
    for _ in range(2):
        saving = make(str(tmp_path))
        params = {"early_stopping": held_out, "max_epochs": 3, "noise_model": None}
        classifier = NoisyLabelClassifier(callbacks=[saving, LoadInitState(saving)], **params)
        classifier.fit(X, y)
    assert classifier.history_[:, "epoch"] == [1, 2, 3, 4, 5, 6]
    assert classifier.history_[3, "train_loss"] < classifier.history_[1, "train_loss"]
    with pytest.raises(ValueError, match=r"The checkpoint does not match .* set warm_start=True"):
        fit(LoadInitState(saving), "c", held_out, hidden_layer_sizes=(5,))


# --- Loggers ------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("held_out", [True, False])
def test_tensorboard_shows_every_epoch(held_out, kind, writer, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    classifier = fit(TensorBoard(writer), kind, held_out)
    board = accumulator.EventAccumulator(str(tmp_path / "board"))
    shown = {}
    for file in sorted(glob.glob(str(tmp_path / "board" / "*"))):
        board = accumulator.EventAccumulator(file)
        board.Reload()
        for tag in board.Tags()["scalars"]:
            shown.setdefault(tag, []).extend((e.step, e.value) for e in board.Scalars(tag))
    steps, losses = zip(*sorted(shown["Loss/train_loss"]), strict=True)
    assert list(steps) == classifier.history_[:, "epoch"]
    np.testing.assert_allclose(losses, classifier.history_[:, "train_loss"], rtol=1e-5)
    assert ("Loss/valid_loss" in shown) == (
        "valid_loss" in {k for r in classifier.history_ for k in r}
    )
    assert "stage" not in shown
    assert writer.file_writer is None  # closed, and once for all


@pytest.mark.parametrize("kind", ["s", "c", "em", None])
def test_a_run_of_neptune_is_stopped_once_when_all_stages_are_over(kind):
    run = NeptuneRun()
    classifier = fit(NeptuneLogger(Notebook(run)), kind)
    assert run.stopped == 1
    np.testing.assert_allclose(
        run.series["training/train/epoch/loss"], classifier.history_[:, "train_loss"]
    )
    left_open = NeptuneRun()
    fit(NeptuneLogger(Notebook(left_open), close_after_train=False), kind)
    assert left_open.stopped == 0


@pytest.mark.parametrize("kind", ["s", "c", "em", None])
def test_a_run_of_mlflow_is_terminated_once_when_all_stages_are_over(kind):
    client = MlflowClient()
    classifier = fit(MlflowLogger(RUN, Notebook(client)), kind)
    assert client.terminated == 1
    np.testing.assert_allclose(client.metrics["train_loss"], classifier.history_[:, "train_loss"])
    assert "stage" not in client.metrics
    assert {name for name, _ in client.artifacts} >= {"params.pth", "history.json"}


def test_wandb_is_told_of_the_stage_and_keeps_the_best_model(tmp_path):
    run = WandbRun(tmp_path)
    classifier = fit(WandbLogger(Notebook(run)))
    assert [row["stage"] for row in run.rows] == classifier.history_[:, "stage"]
    assert (tmp_path / "best_model.pth").stat().st_size > 0


def test_sacred_is_told_of_numbers_only():
    run = SacredRun()
    classifier = fit(SacredLogger(Notebook(run)), "c")
    np.testing.assert_allclose(run.scalars["valid_loss"], classifier.history_[:, "valid_loss"])
    assert "stage" not in run.scalars


def test_keys_that_the_user_ignores_are_still_ignored():
    run = SacredRun()
    fit(SacredLogger(Notebook(run), keys_ignored=["dur"]))
    assert set(run.scalars) == {"train_loss", "valid_loss"}


# --- The size of the input ----------------------------------------------------------------------


class Sized(nn.Module):
    def __init__(self, input_dim=1):
        super().__init__()
        self.layer = nn.Linear(input_dim, 6)

    def forward(self, X):
        return self.layer(X).relu()


@pytest.mark.parametrize(
    "setter",
    [
        InputShapeSetter,
        InputShapeSetter(),
        ("shape", InputShapeSetter()),
        InputShapeSetter(input_dim_fn=lambda X: X.shape[1]),
    ],
    ids=["class", "instance", "named", "function"],
)
def test_the_size_of_the_input_is_set(setter):
    for n in (8, 3):
        classifier = NoisyLabelClassifier(Sized, callbacks=[setter], max_epochs=2).fit(X[:, :n], y)
        assert classifier.net_.network.hidden.layer.in_features == n
    assert not hasattr(classifier, "module__input_dim")


def test_a_module_that_has_no_such_parameter_or_is_made_already_is_refused():
    setter = InputShapeSetter(param_name="width")
    with pytest.raises(ValueError, match=r"module__width.*It takes: module__input_dim"):
        NoisyLabelClassifier(Sized, callbacks=[setter]).fit(X, y)
    with pytest.raises(ValueError, match="`module` is an instance"):
        NoisyLabelClassifier(Sized(8), callbacks=[InputShapeSetter]).fit(X, y)
