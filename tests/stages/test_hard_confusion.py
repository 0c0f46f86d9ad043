"""The start of the public code: counts of the arg max, on all rows, and again for the c-model."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import make_blobs
from skorch.callbacks import Callback

from sknoisy import NoisyLabelClassifier
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import corrupt_labels, pair_transition

K = 4
#: What the counts are floored at, and how far float32 is off.
CLOSE = {"atol": 1e-6}


@pytest.fixture(scope="module")
def blobs():
    X, y = make_blobs(400, centers=K, cluster_std=2.5, random_state=2)
    X = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float32)
    return X, corrupt_labels(y, pair_transition(K, 0.35), exact=True, random_state=0)


def counted(net, X, y):
    """Count the predictions of a network as it is against observed labels, row by row.

    A class that is never predicted counts once, for itself.
    """
    counts = np.zeros((K, K))
    for row, label in zip(net.predict(X), y, strict=True):
        counts[row, label] += 1
    return np.where(counts.sum(axis=1, keepdims=True) > 0, counts, np.eye(K))


def record(X, y, trusted=None, **params):
    """Fit, and return what the noise layer and the counts were when each stage began.

    Labels that were checked are not counted.
    """
    rows = slice(None) if trusted is None else ~trusted
    seen = []

    class Recorder(Callback):
        def on_train_begin(self, net, **kwargs):
            noise = net.network.noise
            state = {} if noise is None else noise.state_dict()
            arrays = {name: tensor.numpy().copy() for name, tensor in state.items()}
            seen.append(
                (net.network.noise_model, arrays, counted(net, X[rows], y[rows]) if noise else None)
            )

    estimator = NoisyLabelClassifier(
        transition_init="hard_confusion",
        hidden_layer_sizes=(16,),
        lr=1e-2,
        max_epochs=8,
        early_stopping=True,
        select_noise_model=False,
        callbacks=[Recorder()],
        random_state=0,
        **params,
    ).fit(X, y, trusted=trusted)
    return estimator, seen


@pytest.fixture(scope="module")
def fitted(blobs):
    return record(*blobs, noise_model="c")


def test_the_s_model_starts_from_counts_of_the_baseline_over_all_rows(fitted):
    estimator, seen = fitted
    assert [stage for stage, *_ in seen] == [None, "s", "c"]
    _, arrays, counts = seen[1]
    assert counts.sum() == 400  # those that are held out included
    shares = counts / counts.sum(axis=1, keepdims=True)
    bias = arrays["bias"] - np.logaddexp.reduce(arrays["bias"], axis=1, keepdims=True)
    assert_allclose(np.exp(bias), shares, **CLOSE)
    assert_allclose(estimator.initial_transition_matrix_, shares, **CLOSE)


def test_the_c_model_starts_from_counts_of_the_s_model_and_no_weights(fitted):
    _, seen = fitted
    _, arrays, counts = seen[2]
    shares = counts / counts.sum(axis=1, keepdims=True)
    assert_allclose(np.exp(arrays["bias"]), shares, **CLOSE)
    assert not arrays["weight"].any()
    assert not np.allclose(seen[1][2], counts)  # and not from those of the baseline


def test_counts_are_hard(blobs, fitted):
    X, y = blobs
    soft = NoisyLabelClassifier(
        transition_init="confusion",
        hidden_layer_sizes=(16,),
        lr=1e-2,
        max_epochs=8,
        early_stopping=True,
        select_noise_model=False,
        random_state=0,
    ).fit(X, y)
    # Averages of probabilities are the more blurred ones.
    hard = fitted[0].initial_transition_matrix_
    assert np.diag(hard).mean() > np.diag(soft.initial_transition_matrix_).mean() + 0.05


def test_a_sparse_layer_keeps_the_largest_counts_of_each_stage(blobs):
    _, seen = record(*blobs, noise_model="c", n_noise_targets=2)
    for _, arrays, counts in seen[1:]:
        largest = np.sort(np.argsort(counts, axis=1)[:, -2:], axis=1)
        assert_array_equal(arrays["targets"], largest)
        kept = np.take_along_axis(counts, largest, axis=1)
        bias = arrays["bias"] - np.logaddexp.reduce(arrays["bias"], axis=1, keepdims=True)
        assert_allclose(np.exp(bias), kept / kept.sum(axis=1, keepdims=True), **CLOSE)


def test_the_network_keeps_the_weights_of_the_stage_before(blobs):
    X, y = blobs
    heads = []

    class Heads(Callback):
        def on_train_begin(self, net, **kwargs):
            heads.append(net.network.head.weight.detach().clone())

        def on_train_end(self, net, **kwargs):
            heads.append(net.network.head.weight.detach().clone())

    NoisyLabelClassifier(
        noise_model="c",
        transition_init="hard_confusion",
        max_epochs=3,
        early_stopping=True,
        select_noise_model=False,
        callbacks=[Heads()],
        random_state=0,
    ).fit(X, y)
    assert len(heads) == 6
    assert heads[1].equal(heads[2]) and heads[3].equal(heads[4])


@pytest.mark.parametrize("noise_model", ["s", "c"])
def test_without_held_out_rows_it_is_counted_for_the_last_training_too(blobs, noise_model):
    X, y = blobs
    estimator = NoisyLabelClassifier(
        noise_model=noise_model,
        transition_init="hard_confusion",
        max_epochs=3,
        early_stopping=False,
        select_noise_model=False,
        random_state=0,
    ).fit(X, y)
    counts = estimator.initial_transition_matrix_ * 400
    assert estimator.noise_model_ == noise_model
    assert_allclose(estimator.initial_transition_matrix_.sum(axis=1), 1, **CLOSE)
    assert counts.max() > 0


def test_a_class_that_is_never_predicted_keeps_its_label():
    X = np.zeros((100, 1), dtype=np.float32)
    y = np.repeat([0, 1, 2], [60, 30, 10])
    with pytest.warns(UserWarning):
        estimator = NoisyLabelClassifier(
            transition_init="hard_confusion",
            max_epochs=2,
            early_stopping=True,
            select_noise_model=False,
            random_state=0,
        ).fit(X, y)
    start = estimator.initial_transition_matrix_
    seen = int(np.argmin(np.diag(start)))
    assert_allclose(start[seen], [0.6, 0.3, 0.1], atol=1e-6)
    unseen = [i for i in range(3) if i != seen]
    assert_allclose(start[unseen], np.eye(3)[unseen], atol=1e-6)


@pytest.mark.parametrize("noise_model", ["s", "c"])
def test_in_a_stream_the_block_that_is_held_back_is_counted(noise_model):
    X, y = make_blobs(8000, centers=K, cluster_std=1.0, random_state=2)
    X = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float32)
    true = pair_transition(K, 0.3)
    observed = corrupt_labels(y, true, exact=True, random_state=0)
    estimator = NoisyLabelClassifier(
        noise_model=noise_model,
        transition_init="hard_confusion",
        n_iter_no_change=1,
        lr=1e-2,
        select_noise_model=False,
        random_state=0,
    )
    for first in range(0, 8000, 500):
        rows = slice(first, first + 500)
        estimator.partial_fit(X[rows], observed[rows], classes=range(K))
    assert estimator.noise_model_ == noise_model
    # Counts of 1000 rows are multiples of one over the predictions of a class.
    start = estimator.initial_transition_matrix_
    assert transition_matrix_error(start, true) < 0.1
    assert start.min() < 1e-6  # averages of probabilities would have no zeros


def test_checked_rows_have_no_part_in_the_counts_of_observed_labels(blobs):
    trusted = np.zeros(len(blobs[1]), dtype=bool)
    trusted[::10] = True
    estimator, seen = record(*blobs, trusted=trusted)
    counts = next(counts for stage, _, counts in seen if stage == "s")
    assert counts.sum() == 360
    shares = counts / counts.sum(axis=1, keepdims=True)
    assert_allclose(estimator.initial_transition_matrix_, shares, **CLOSE)
