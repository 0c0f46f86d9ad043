"""Refusals, with the sum, of what is known not to fit in memory."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from torch import nn

from sknoisy import NoisyLabelClassifier
from sknoisy._support import memory
from sknoisy._support.memory import available_bytes, check_feature_noise_fits, check_memory

X, y = make_blobs(90, centers=3, random_state=0)


def test_this_machine_has_some_memory_and_not_more_than_there_is():
    free = available_bytes()
    assert free is None or 2**20 < free < 2**60


def test_what_fits_passes_and_what_does_not_is_refused_with_both_sums(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": 2**30)
    check_memory(2**30, "cpu", "This", "Do that.")
    with pytest.raises(MemoryError, match=r"This takes 1\.5 GiB; 1\.0 GiB are free\. Do that\."):
        check_memory(3 * 2**29, "cpu", "This", "Do that.")


def test_a_system_that_does_not_say_refuses_nothing(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": None)
    check_memory(2**60, "cpu", "This", "Do that.")


def test_the_need_of_the_c_model_grows_with_its_weights(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": 10 * 2**30)
    check_feature_noise_fits(1000, 10, 256, torch.float32, "cpu")
    check_feature_noise_fits(100, None, 256, torch.float32, "cpu")
    with pytest.raises(MemoryError, match=r"257,000,000 weights.* takes 4\.8 GiB") as refusal:
        monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": 2**30)
        check_feature_noise_fits(1000, None, 256, torch.float32, "cpu")
    assert "Set `n_noise_targets`" in str(refusal.value)


def test_a_c_model_that_cannot_be_trained_is_refused_before_the_first_epoch(monkeypatch):
    epochs = []
    classifier = NoisyLabelClassifier(noise_model="c", random_state=0, max_epochs=1)
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": 1000)
    monkeypatch.setattr(
        "sknoisy._net.net.SkorchNet.run_single_epoch",
        lambda *a, **k: epochs.append(a),
    )
    with pytest.raises(MemoryError, match="noise_model='c' with 3 true classes, 3 observed"):
        classifier.fit(X, y)
    assert epochs == []
    assert not hasattr(classifier, "net_")


def test_matrices_of_all_rows_that_do_not_fit_are_refused(monkeypatch):
    params = {"select_noise_model": False, "random_state": 0, "max_epochs": 1}
    classifier = NoisyLabelClassifier(noise_model="c", **params).fit(X, y)
    shape = classifier.predict_transition(X).shape
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": 1000)
    with pytest.raises(MemoryError, match=r"`predict_transition` of 90 rows and 3 classes takes"):
        classifier.predict_transition(X)
    assert shape == (90, 3, 3)


@pytest.mark.parametrize("params", [{}, {"method": "em", "max_em_iter": 3}, {"noise_model": "c"}])
def test_a_classifier_with_few_noise_targets(params):
    sparse = NoisyLabelClassifier(n_noise_targets=2, max_epochs=3, random_state=0, **params)
    matrix = sparse.fit(X, y).transition_matrix_
    assert np.all((matrix > 1e-6).sum(axis=1) <= 2)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(sparse.predict_noisy_proba(X).sum(axis=1), 1, atol=1e-6)


def test_more_noise_targets_than_classes_are_refused():
    with pytest.raises(ValueError, match=r"n_noise_targets.* 3.*got 4"):
        NoisyLabelClassifier(n_noise_targets=4).fit(X, y)
    with pytest.raises(ValueError, match="n_noise_targets"):
        NoisyLabelClassifier(n_noise_targets=0).fit(X, y)


# --- What torch cannot allocate -----------------------------------------------------------------


class Greedy(nn.Module):
    """Asks for far too much when a batch has many rows."""

    def __init__(self, most_rows=1):
        super().__init__()
        self.layer = nn.Linear(2, 4)
        self.most_rows = most_rows

    def forward(self, X):
        if len(X) > self.most_rows:
            torch.zeros(len(X), 2**45)
        return self.layer(X).relu()


class Wide(nn.Linear):
    def __init__(self):
        super().__init__(2, 2**45)


advised = pytest.mark.parametrize("params", [{}, {"noise_model": "c"}, {"early_stopping": True}])
advice = r"torch could not allocate \d+\.\d GiB.*`batch_size`.*`module`"


@advised
@pytest.mark.parametrize(
    "module", [Wide, Greedy, lambda: Greedy(2), lambda: Greedy(20)], ids=["made", "1", "2", "20"]
)
def test_no_memory_in_a_fit_is_a_memory_error_with_advice(module, params):
    classifier = NoisyLabelClassifier(module, max_epochs=2, **params)
    for fit in (classifier.fit, lambda X, y: classifier.partial_fit(X, y, [0, 1, 2])):
        with pytest.raises(MemoryError, match=advice) as raised:
            fit(X, y)
        assert isinstance(raised.value.__cause__, RuntimeError)
    assert not hasattr(classifier, "net_")


@advised
def test_no_memory_in_a_prediction_is_a_memory_error_with_advice(params):
    fitted = NoisyLabelClassifier(Greedy, module__most_rows=90, max_epochs=2, **params).fit(X, y)
    many, labels = np.tile(X, (2, 1)), np.tile(y, 2)
    calls = [fitted.predict, fitted.predict_proba, fitted.predict_log_proba]
    calls += [fitted.predict_noisy_proba, lambda X: fitted.label_posterior(X, labels)]
    for call in calls:
        with pytest.raises(MemoryError, match=advice):
            call(many)
    fitted.set_params(iterator_valid__batch_size=30)
    assert fitted.fit(X, y).predict(many).shape == (180,)  # as it is told


@pytest.mark.parametrize("sizes", [(10**7, 10**7), (10**12,), (2**62, 2**62)])
def test_a_default_network_that_cannot_be_held_is_refused(sizes):
    classifier = NoisyLabelClassifier(hidden_layer_sizes=sizes)
    with pytest.raises(MemoryError, match=r"weights, takes .* GiB.*Lower `hidden_layer_sizes`"):
        classifier.fit(X, y)


@pytest.mark.parametrize(
    "said",
    [
        "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 800 bytes.",
        "MPS backend out of memory (MPS allocated: 1 GB)",
        "Storage size calculation overflowed with sizes=[4611686018427387904]",
    ],
)
def test_every_way_in_which_torch_says_it_is_known(said):
    with pytest.raises(MemoryError, match="torch could not allocate"), memory.memory_errors():
        raise RuntimeError(said)


def test_other_errors_of_torch_come_through():
    with pytest.raises(RuntimeError, match="mat1 and mat2"), memory.memory_errors():
        torch.ones(2, 3) @ torch.ones(2, 3)
