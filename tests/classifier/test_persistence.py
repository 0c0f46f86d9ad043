"""Files of models: whole or not at all, and no code in them that loading could run."""

import errno
import json
import multiprocessing
import os
import pickle
import stat
import sys
import zipfile

import numpy as np
import pytest
import skops.io
import torch
from numpy.testing import assert_array_equal
from sklearn.datasets import make_blobs
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sknoisy import NoisyLabelClassifier, load_model, save_model
from sknoisy._classifier import persistence

X, y = make_blobs(80, centers=3, random_state=0)


def quick(**params):
    common = {"max_epochs": 2, "select_noise_model": False, "random_state": 0}
    return NoisyLabelClassifier(**common | params)


class Hidden(nn.Linear):
    def __init__(self):
        super().__init__(2, 4)


@pytest.fixture(scope="module")
def classifier():
    return quick().fit(X, y)


@pytest.fixture
def path(tmp_path, classifier):
    save_model(classifier, tmp_path / "model.skops")
    return tmp_path / "model.skops"


@pytest.mark.parametrize("text", [str, os.fspath, lambda path: path])
def test_a_model_comes_back(text, classifier, path):
    loaded = load_model(text(path))
    assert_array_equal(loaded.predict_noisy_proba(X), classifier.predict_noisy_proba(X))
    assert_array_equal(loaded.transition_matrix_, classifier.transition_matrix_)


def test_what_holds_a_classifier_comes_back(tmp_path):
    pipeline = make_pipeline(StandardScaler(), quick()).fit(X, y)
    save_model(pipeline, tmp_path / "model")
    assert_array_equal(load_model(tmp_path / "model").predict_proba(X), pipeline.predict_proba(X))
    search = GridSearchCV(quick(), {"dropout": [0.0, 0.2]}, cv=2).fit(X, y)
    save_model(search, tmp_path / "model")
    splitter = "sklearn.model_selection._split.StratifiedKFold"
    scorer = "sklearn.metrics._scorer._PassthroughScorer"
    loaded = load_model(tmp_path / "model", trusted=[splitter, scorer])
    assert_array_equal(loaded.predict_proba(X), search.predict_proba(X))


def test_a_file_of_skops_is_loaded(classifier, tmp_path):
    skops.io.dump(classifier, tmp_path / "model")
    assert_array_equal(load_model(tmp_path / "model").predict(X), classifier.predict(X))


def test_the_own_module_is_named_and_loaded_when_it_is_trusted(tmp_path):
    fitted = quick(module=Hidden).fit(X, y)
    save_model(fitted, tmp_path / "model")
    name = f"{__name__}.Hidden"
    with pytest.raises(ValueError, match=rf"trusted types only; '.*model' holds {name}\. Pass"):
        load_model(tmp_path / "model")
    loaded = load_model(tmp_path / "model", trusted=[name])
    assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


def test_another_version_is_still_told(path, monkeypatch):
    monkeypatch.setattr(persistence, "__version__", "99.0")
    with pytest.warns(InconsistentVersionWarning):
        load_model(path)


def test_without_skops_it_is_asked_for(path, classifier, monkeypatch):
    monkeypatch.setitem(sys.modules, "skops", None)
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(ImportError, match="pip install skops"):
        load_model(path)
    with pytest.raises(ImportError, match="pip install skops"):
        save_model(classifier, path)


# --- Full disks ---------------------------------------------------------------------------------


class FullDiskError(OSError):
    def __init__(self):
        super().__init__(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("fault", [FullDiskError, KeyboardInterrupt])
def test_a_fault_while_saving_leaves_the_old_file_whole(step, fault, path, monkeypatch):
    before = path.read_bytes()

    def fail(*args):
        raise fault

    monkeypatch.setattr(persistence.os, step, fail)
    with pytest.raises(fault):
        save_model(quick(max_epochs=1).fit(X, y), path)
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == before


def save_on_a_full_disk(path, limit, sender):
    import resource
    import signal

    model = load_model(path)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        save_model(model, path)
    except OSError as error:
        sender.send(error.errno)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs limits on processes")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a fork beside threads
def test_a_disk_that_fills_leaves_the_old_file_whole(path):
    before = path.read_bytes()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=save_on_a_full_disk, args=(path, len(before) // 2, sender))
    process.start()
    assert receiver.poll(120)
    assert receiver.recv() == errno.EFBIG
    process.join(60)
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == before


def test_permissions_and_links_stay(path, classifier):
    path.chmod(0o640)
    link = path.with_name("link")
    link.symlink_to(path)
    save_model(classifier, link)
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert_array_equal(load_model(path).predict(X), classifier.predict(X))


def test_a_folder_that_is_not_there_is_refused(path, classifier):
    with pytest.raises(FileNotFoundError):
        save_model(classifier, path.parent / "missing" / "model")
    with pytest.raises(FileNotFoundError):
        load_model(path.parent / "missing")


# --- Damage -------------------------------------------------------------------------------------

DAMAGED = r"`path` must be a whole file of `save_model`; '.*model.skops' is truncated, tampered"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(share, path):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=DAMAGED):
        load_model(path)


def test_a_file_with_a_changed_byte_is_refused_or_says_the_same(path, classifier):
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    refused = 0
    for place in np.linspace(0, len(content) - 1, 60).astype(int):
        damaged = content.copy()
        damaged[place] ^= 0x55
        path.write_bytes(damaged.tobytes())
        try:
            loaded = load_model(path)
        except ValueError as error:
            assert "is truncated, tampered" in str(error)
            refused += 1
        else:
            assert_array_equal(loaded.predict_proba(X), classifier.predict_proba(X))
    assert refused > 30


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("content", [b"", b"no model", pickle.dumps(RunsCode())])
def test_another_file_is_refused_and_not_run(content, path, monkeypatch):
    monkeypatch.chdir(path.parent)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=DAMAGED):
        load_model(path)
    assert os.listdir(path.parent) == [path.name]


def rewrite(path, change):
    """Rewrite the file with right checksums after `change` was made to its schema."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(members["schema.json"])
    change(schema)
    members["schema.json"] = json.dumps(schema)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def as_system_call(schema):
    schema.update(__class__="system", __module__="os", __loader__="FunctionNode", content="x")


def as_other_type(schema):
    schema.update(__class__="Popen", __module__="subprocess")


def of_a_loader_that_is_not_there(schema):
    schema["__loader__"] = "PickleNode"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (as_system_call, "trusted|truncated"),
        (as_other_type, r"trusted types only; .* holds subprocess\.Popen"),
        (of_a_loader_that_is_not_there, DAMAGED),
    ],
)
def test_a_schema_that_was_tampered_with_is_refused(change, message, path):
    rewrite(path, change)
    with pytest.raises(ValueError, match=message):
        load_model(path)


def test_weights_in_safetensors_that_are_damaged_are_refused(tmp_path, classifier):
    safetensors = pytest.importorskip("safetensors.torch")
    file = tmp_path / "weights.safetensors"
    weights = classifier.net_.network.state_dict()
    safetensors.save_file(weights, file)
    content = file.read_bytes()
    for damaged in (content[:-4], content[: len(content) // 3], b"\xff" * 64, b""):
        file.write_bytes(damaged)
        with pytest.raises(Exception, match=r"[Ss]afetensor|header|empty|metadata"):
            safetensors.load_file(file)
    other = {name: torch.zeros(1) for name in weights}
    with pytest.raises(RuntimeError, match="size mismatch"):
        classifier.net_.network.load_state_dict(other)
