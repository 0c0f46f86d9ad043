"""Saving: modules that are instances, what cannot come back, and places that are no files."""

import copy
import functools
import os
import pickle
import stat
import subprocess
import sys
import threading
import uuid

import joblib
import numpy as np
import pytest
import skops.io
import torch
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sknoisy import SKOPS_TRUSTED_TYPES, NoisyLabelClassifier, load_model, save_model
from sknoisy._net import net_state

X, y = make_blobs(80, centers=3, random_state=0)
X = X.astype("float32")


def quick(**params):
    common = {"max_epochs": 2, "select_noise_model": False, "random_state": 0}
    return NoisyLabelClassifier(**common | params)


class Scaled(nn.Module):
    """Tensors of every kind: weights, tables of other types, and attributes that are neither."""

    def __init__(self, body=None):
        super().__init__()
        self.body = nn.Linear(2, 6) if body is None else body
        self.again = self.body
        self.register_buffer("short", torch.full((6,), 1.5, dtype=torch.bfloat16))
        self.register_buffer("hidden_from_files", torch.ones(1), persistent=False)
        self.scale = torch.tensor(2.0)
        self.steps = [torch.tensor([1, 2]), (torch.tensor(3.0), "a")]
        self.named = {"b": torch.tensor(True)}
        self.frozen = nn.Parameter(torch.tensor(0.5), requires_grad=False)

    def forward(self, X):
        hidden = self.again(X).relu() * self.scale * self.short.to(X.dtype)
        return hidden * self.steps[1][0] + self.frozen * self.named["b"]


def sequence():
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4))


INSTANCES = {
    "Sequential": sequence,
    "Linear": lambda: nn.Linear(2, 5),
    "own": Scaled,
    "shared": lambda: Scaled(nn.Linear(2, 6)),
    "frozen": lambda: nn.Linear(2, 4).requires_grad_(False),
    "batch norm": lambda: nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4)),
}


def all_types(model):
    return skops.io.get_untrusted_types(data=skops.io.dumps(model))


@pytest.mark.parametrize("make", INSTANCES.values(), ids=INSTANCES)
@pytest.mark.parametrize("wrap", [lambda c: c, lambda c: make_pipeline(StandardScaler(), c)])
def test_a_module_that_is_an_instance_is_saved_with_its_weights(make, wrap, tmp_path):
    module = make()
    model = wrap(quick(module=module)).fit(X, y)
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model", trusted=all_types(model))
    assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    name = "module" if isinstance(loaded, NoisyLabelClassifier) else "noisylabelclassifier__module"
    again = loaded.get_params()[name]
    assert type(again) is type(module)
    assert again.state_dict().keys() == module.state_dict().keys()
    for key, value in module.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
        assert again.state_dict()[key].dtype == value.dtype
    assert [p.requires_grad for p in again.parameters()] == [
        p.requires_grad for p in module.parameters()
    ]
    # Both are fitted again to the same: the module that was given came back as it was.
    assert_array_equal(clone(loaded).fit(X, y).predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize(
    "round_trip",
    [
        lambda c: pickle.loads(pickle.dumps(c)),
        copy.deepcopy,
        lambda c: skops.io.loads(skops.io.dumps(c), trusted=all_types(c)),
    ],
    ids=["pickle", "deepcopy", "skops"],
)
@pytest.mark.parametrize("fitted", [True, False])
def test_tensors_that_are_no_parameters_come_back(fitted, round_trip):
    module = Scaled()
    classifier = quick(module=module)
    if fitted:
        classifier.fit(X, y)
    again = round_trip(classifier)
    module, own = again.module, Scaled()
    assert module.again is module.body
    assert module.short.dtype == torch.bfloat16
    assert torch.equal(module.scale, own.scale)
    assert torch.equal(module.steps[1][0], own.steps[1][0])
    assert module.steps[1][1] == "a"
    assert torch.equal(module.named["b"], own.named["b"])
    assert "hidden_from_files" not in module.state_dict()
    if fitted:
        assert_array_equal(again.predict_proba(X), classifier.predict_proba(X))


@pytest.mark.parametrize(
    "values",
    [
        torch.tensor([1 + 2j, 3.0]).conj(),
        torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        torch.tensor([1.5, -2.0], dtype=torch.float16),
        torch.tensor([True, False]),
        torch.tensor(3),
        torch.empty(0, 3),
        torch.arange(12.0).reshape(3, 4).T,
    ],
    ids=str,
)
def test_tables_of_every_type_come_back(values):
    module = nn.Linear(2, 4)
    module.register_buffer("table", values)
    module.constant = values
    classifier = quick(module=module)
    again = skops.io.loads(skops.io.dumps(classifier), trusted=SKOPS_TRUSTED_TYPES).module
    for tensor in (again.table, again.constant):
        assert tensor.dtype == values.dtype
        assert torch.equal(tensor, values)


class Listed(nn.Module):
    """Weights in lists and dicts besides their own places."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.randn(4, 3))
        self.all = [self.first, ("then", self.second)]
        self.by_name = {"first": self.first, 2: {"second": self.second}}
        self.last = None
        self.__dict__["alias"] = self.second

    def forward(self, X):
        return (X @ self.all[0]).relu() @ self.by_name[2]["second"] + self.alias.mean()


def test_weights_that_are_in_lists_as_well_are_the_same_weights():
    fitted = quick(module=Listed).fit(X, y)
    for again in (
        pickle.loads(pickle.dumps(fitted)),
        skops.io.loads(skops.io.dumps(fitted), trusted=all_types(fitted)),
    ):
        hidden = again.net_.network.hidden
        assert hidden.all[0] is hidden.by_name["first"] is hidden.first
        assert hidden.all[1][1] is hidden.by_name[2]["second"] is hidden.alias is hidden.second
        assert hidden.all[1][0] == "then"
        assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))


def test_a_lazy_module_that_has_no_shape_yet_is_pickled_and_copied():
    classifier = quick(module=nn.LazyLinear(4))
    for again in (pickle.loads(pickle.dumps(classifier)), copy.deepcopy(classifier)):
        assert again.fit(X, y).predict(X).shape == y.shape


def test_modules_among_the_parameters_of_a_module_are_saved(tmp_path):
    fitted = quick(module=Scaled, module__body=nn.Linear(2, 6)).fit(X, y)
    save_model(fitted, tmp_path / "model")
    loaded = load_model(tmp_path / "model", trusted=all_types(fitted))
    assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    assert torch.equal(loaded.module__body.weight, fitted.module__body.weight)


OF_TORCH = {
    "Sequential": sequence,
    "normalised": lambda: nn.Sequential(
        nn.Linear(2, 4), nn.BatchNorm1d(4), nn.GELU(), nn.LayerNorm(4), nn.Dropout(0.1)
    ),
    "convolutions": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2)), nn.Conv1d(1, 3, 1), nn.SiLU(), nn.MaxPool1d(2), nn.Flatten()
    ),
    "nested": lambda: nn.Sequential(nn.Identity(), nn.Sequential(nn.Linear(2, 3), nn.PReLU())),
}


@pytest.mark.parametrize("make", OF_TORCH.values(), ids=OF_TORCH)
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_layers_and_optimisers_of_torch_need_no_extra_trust(optimizer, make, tmp_path):
    fitted = quick(module=make(), optimizer=optimizer).fit(X, y)
    save_model(fitted, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    assert_array_equal(clone(loaded).fit(X, y).predict_proba(X), fitted.predict_proba(X))


class Typed(nn.Linear):
    def __init__(self, dtype=None):
        super().__init__(2, 4)
        self.computes_in = [dtype, torch.device("cpu")]

    def forward(self, X):
        return super().forward(X.to(self.computes_in[0]).to(X.dtype))


def test_types_of_numbers_are_saved(tmp_path):
    for module in (Typed(torch.bfloat16), Typed):
        params = {} if module is not Typed else {"module__dtype": torch.float16}
        fitted = quick(module=module, **params).fit(X, y)
        save_model(fitted, tmp_path / "model")
        loaded = load_model(tmp_path / "model", trusted=[f"{__name__}.Typed"])
        assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
        assert loaded.get_params().get("module__dtype") == params.get("module__dtype")


def test_large_modules_go_to_other_processes():
    """joblib maps arrays of more than a megabyte to memory that cannot be written."""
    classifier = quick(module=nn.Sequential(nn.Linear(2, 2000), nn.Linear(2000, 200)))
    search = GridSearchCV(classifier, {"noise_model": ["s", None]}, cv=2, n_jobs=2)
    assert np.isfinite(search.fit(X, y).cv_results_["mean_test_score"]).all()


# --- Devices ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda c: c, lambda c: make_pipeline(StandardScaler(), c)])
@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), torch.device("cpu", 0)])
def test_a_device_needs_no_extra_trust(device, wrap, tmp_path):
    model = wrap(quick(device=device)).fit(X, y)
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    assert set(all_types(model)) <= set(SKOPS_TRUSTED_TYPES)
    assert loaded.set_params().fit(X, y).score(X, y) == model.score(X, y)


# --- What cannot come back ----------------------------------------------------------------------


def local_class():
    class Local(nn.Linear):
        def __init__(self):
            super().__init__(2, 4)

    return Local


UNSTORABLE = {
    "lambda": ({"module": lambda: nn.Linear(2, 4)}, "module"),
    "partial of a lambda": ({"module": functools.partial(lambda n: nn.Linear(2, n), 4)}, "module"),
    "local class": ({"module": local_class()}, "module"),
    "instance of a local class": ({"module": local_class()()}, "module"),
    "parameter of a module": (
        {"module": Scaled, "module__body": nn.Sequential(local_class()(), nn.Linear(4, 6))},
        "module__body",
    ),
    "optimizer": (
        {"optimizer": lambda params, lr: torch.optim.SGD(params, lr=lr)},
        "optimizer",
    ),
    "iterator": ({"iterator_valid": lambda d, batch_size: [d.take(slice(0, len(d)))]}, "iterator"),
}


@pytest.mark.parametrize(("params", "named"), UNSTORABLE.values(), ids=UNSTORABLE)
@pytest.mark.parametrize("fitted", [True, False])
def test_what_could_not_be_loaded_is_refused_when_it_is_saved(fitted, params, named, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"before")
    model = make_pipeline(StandardScaler(), quick(**params))
    if fitted:
        model.fit(X, y)
    message = rf"`model` must be made of what can be loaded again.*`noisylabelclassifier__{named}"
    with pytest.raises(ValueError, match=message):
        save_model(model, path)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize(
    "other",
    [{"a": 1}, [quick()], None, 3, np.eye(2), StandardScaler(), LogisticRegression(), quick],
    ids=lambda other: type(other).__name__,
)
def test_what_is_no_model_is_neither_saved_nor_loaded(other, tmp_path):
    with pytest.raises(TypeError, match=r"`model` must be a NoisyLabelClassifier .*; got "):
        save_model(other, tmp_path / "model")
    assert os.listdir(tmp_path) == []
    if other is quick:
        return
    skops.io.dump(other, tmp_path / "model")
    message = rf"`path` must be a file of `save_model`.* holds {type(other).__name__}\."
    with pytest.raises(ValueError, match=message):
        load_model(
            tmp_path / "model", trusted=skops.io.get_untrusted_types(file=tmp_path / "model")
        )


def test_an_ensemble_that_holds_classifiers_is_a_model(tmp_path):
    model = VotingClassifier([("a", LogisticRegression()), ("b", quick())], voting="soft").fit(X, y)
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model", trusted=all_types(model))
    assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


# --- Places -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    return quick().fit(X, y)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_written_to_and_stays(fitted, tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    received = []
    reader = threading.Thread(target=lambda: received.append(path.read_bytes()), daemon=True)
    reader.start()
    save_model(fitted, path)
    reader.join(60)
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]
    (tmp_path / "file").write_bytes(received[0])
    assert_array_equal(load_model(tmp_path / "file").predict(X), fitted.predict(X))

    writer = threading.Thread(target=save_model, args=(fitted, path), daemon=True)
    writer.start()
    assert_array_equal(load_model(path).predict(X), fitted.predict(X))
    writer.join(60)


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="needs device files")
def test_a_device_file_is_written_to_and_stays(fitted, tmp_path):
    link = tmp_path / "link"
    link.symlink_to("/dev/null")
    for path in ("/dev/null", link):
        save_model(fitted, path)
        assert stat.S_ISCHR(os.stat(path).st_mode)
    assert link.is_symlink()
    with pytest.raises(ValueError, match="must be a whole file"):
        load_model("/dev/null")


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="needs /dev/stdout")
def test_standard_output_is_written_to(fitted, tmp_path):
    joblib.dump(fitted, tmp_path / "fitted")
    code = (
        "import joblib, sknoisy\n"
        f"sknoisy.save_model(joblib.load({str(tmp_path / 'fitted')!r}), '/dev/stdout')"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    (tmp_path / "model").write_bytes(out)
    assert_array_equal(load_model(tmp_path / "model").predict(X), fitted.predict(X))


@pytest.mark.parametrize("length", [1, 12, 200, 222, 223, 240, 255])
def test_names_are_as_long_as_the_file_system_lets_them(length, fitted, tmp_path):
    path = tmp_path / ("m" * length)
    for _ in range(2):
        save_model(fitted, path)
    assert os.listdir(tmp_path) == [path.name]
    assert_array_equal(load_model(path).predict(X), fitted.predict(X))


def test_names_are_counted_in_bytes(fitted, tmp_path):
    path = tmp_path / ("\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 127)
    save_model(fitted, os.fsencode(path))
    assert_array_equal(load_model(os.fsencode(path)).predict(X), fitted.predict(X))


def test_a_name_that_is_too_long_or_a_folder_is_refused_and_nothing_is_left(fitted, tmp_path):
    (tmp_path / "folder").mkdir()
    for name in ("m" * 256, "folder"):
        with pytest.raises(OSError, match=name):
            save_model(fitted, tmp_path / name)
    assert os.listdir(tmp_path) == ["folder"]


def test_files_beside_it_are_not_touched(fitted, tmp_path, monkeypatch):
    taken = uuid.UUID(int=0)
    monkeypatch.setattr("sknoisy._classifier.persistence.uuid4", lambda: taken)
    (tmp_path / f".{taken.hex}").write_bytes(b"someone's")
    with pytest.raises(FileExistsError):
        save_model(fitted, tmp_path / ("m" * 40))
    assert (tmp_path / f".{taken.hex}").read_bytes() == b"someone's"


# --- The history --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "history",
    [
        [],
        [{"batches": []}],
        [{"epoch": 1, "batches": [{"a": 0.1}], "stage": "s", "best": True}],
        [{"epoch": i, "batches": [{"a": 0.5 * i, "n": 3}] * i} for i in range(4)],
        [{"batches": [{"a_batch_size": 2}] * i} for i in (1, 3)],
        [{"batches": [{"a": 0.1 * i, "a_batch_size": 7}, {"b": "x", "n": [i]}]} for i in range(5)],
        [{"epoch": 2**40, "loss": float("inf"), "batches": [{"x": None}, {}, {"x": 2**70}]}],
        [{"loss": 0.1}, {"loss": np.float32(0.1)}, {"stage": "s"}, {"stage": "c", "loss": 1}],
    ],
)
def test_a_history_comes_back_value_by_value(history):
    blocks = skops.io.loads(skops.io.dumps(net_state.as_columns(history)))
    assert net_state.as_rows(blocks) == history
    assert [
        [[type(value) for value in batch.values()] for batch in row.get("batches", [])]
        for row in net_state.as_rows(blocks)
    ] == [
        [[type(value) for value in batch.values()] for batch in row.get("batches", [])]
        for row in history
    ]


@pytest.mark.parametrize(
    "batches",
    [
        {"counts": [10**9], "columns": {}},
        {"counts": [10**9], "columns": {"a": [[True], [1.0]]}},
        {"counts": [10**9], "columns": {"a": [[True], []]}},
        {"counts": [2, -1], "columns": {"a": [[True], [1.0]]}},
        {"counts": [3], "columns": {"a": [[True], [1.0, 2.0]]}},
        {"counts": [2], "columns": {"a": [[True, False], [1.0, 2.0, 3.0]]}},
    ],
)
def test_batches_that_are_not_there_are_refused(batches):
    block = {"n_rows": len(batches["counts"]), "constant": {}, "columns": {}, "batches": batches}
    with pytest.raises(ValueError, match="The history says that it has"):
        net_state.as_rows([block])
