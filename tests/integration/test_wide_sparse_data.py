"""Wide sparse data, as texts are: the default network takes the entries that are there."""

import copy
import pickle
import tracemalloc
from functools import cache

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback, EpochScoring
from torch import nn
from torch.utils.data import DataLoader

from sknoisy import NoisyLabelClassifier, load_model, save_model
from sknoisy._data.batches import ArrayDataset
from sknoisy._model.network import Standardization
from sknoisy.noise import corrupt_labels, uniform_transition

N_COLUMNS = 3000


@cache
def texts(n=240, seed=0):
    """Return texts of three topics, with words that they share."""
    rng = np.random.RandomState(seed)
    topics = rng.randint(0, 3, n)
    own, shared = rng.randint(0, 30, (n, 6)), rng.randint(0, 300, (n, 10))
    lines = [
        " ".join([*(f"own{t}x{w}" for w in a), *(f"shared{w}" for w in b)])
        for t, a, b in zip(topics, own, shared, strict=True)
    ]
    observed = corrupt_labels(topics, uniform_transition(3, 0.2), random_state=0)
    return lines, topics, observed


@cache
def data(dtype="float64"):
    lines, topics, observed = texts()
    X = HashingVectorizer(n_features=N_COLUMNS).transform(lines).astype(dtype)
    return sparse.csr_array(X), topics, observed


def classifier(**params):
    common = {"max_epochs": 6, "lr": 0.01, "random_state": 0, "select_noise_model": False}
    return NoisyLabelClassifier(**common | params)


class Batches(Callback):
    def on_batch_begin(self, net, batch, training, **kwargs):
        assert len(batch[0] if not isinstance(batch[0], dict) else batch[0]["X"]) == len(batch[1])


METHODS = {
    "s": {},
    "plain": {"noise_model": None},
    "c": {"noise_model": "c"},
    "em": {"method": "em", "max_em_iter": 3, "tol": 0.0},
    "dropout": {"dropout": 0.3},
    "two layers": {"hidden_layer_sizes": (20, 10)},
    "three layers": {"hidden_layer_sizes": (20, 10, 5), "dropout": 0.1},
    "held out": {"early_stopping": True},
    "SGD": {"optimizer": torch.optim.SGD, "lr": 1.0},
    "volume": {"volume_penalty": 0.1},
    "callbacks": {"callbacks": [Batches, EpochScoring("accuracy", on_train=True)]},
}
every_method = pytest.mark.parametrize("method", METHODS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_method
def test_sparse_data_give_what_dense_data_give(method, dtype, monkeypatch):
    """All but the means, which sparse columns keep."""
    X, _, y = data(dtype)
    reset = Standardization.reset
    monkeypatch.setattr(
        Standardization, "reset", lambda self, mean, scale: reset(self, 0 * mean, scale)
    )
    one = classifier(**METHODS[method]).fit(X, y)
    other = classifier(**METHODS[method]).fit(X.toarray(), y)
    assert one.net_.network.sparse_input is not None
    assert other.net_.network.sparse_input is None
    assert str(one.net_.dtype) == f"torch.{dtype}"
    tolerance = {"rtol": 0, "atol": 1e-8 if dtype == "float64" else 2e-2}
    assert_allclose(one.transition_matrix_, other.transition_matrix_, **tolerance)
    for name in ("predict_proba", "predict_noisy_proba", "predict_transition"):
        given = getattr(one, name)(X)
        assert_allclose(given, getattr(other, name)(X), **tolerance)
        assert_allclose(getattr(one, name)(X.toarray()), given, rtol=0, atol=1e-5)
    assert_allclose(one.label_posterior(X, y), other.label_posterior(X, y), **tolerance)


@pytest.mark.parametrize("kind", [DataLoader, None])
def test_loaders_of_torch_are_taken(kind):
    X, topics, y = data()
    params = {"iterator_train": kind, "iterator_valid": kind, "early_stopping": True}
    fitted = classifier(max_epochs=20, **params).fit(X, y, sample_weight=np.arange(240) % 3)
    assert fitted.score(X, topics) > 0.8


def test_columns_that_did_not_occur_count_for_nothing():
    X, _, y = data()
    fitted = classifier().fit(X, y)
    occur = np.flatnonzero(X.sum(axis=0))
    assert_array_equal(fitted.net_.network.sparse_input.columns, occur)
    others = np.setdiff1d(np.arange(N_COLUMNS), occur)
    more = sparse.lil_array(X)
    more[:, others[:50]] = 1.0
    assert_array_equal(fitted.predict_proba(sparse.csr_array(more)), fitted.predict_proba(X))
    nothing = sparse.csr_array((5, N_COLUMNS))
    assert_allclose(fitted.predict_proba(nothing), fitted.predict_proba(nothing[[0]]).repeat(5, 0))


def test_a_stream_learns_columns_when_they_come():
    X, topics, y = data()
    learned = classifier(transition_init=uniform_transition(3, 0.2))
    seen = set()
    for i in range(0, 240, 40):
        learned.partial_fit(X[i : i + 40], y[i : i + 40], classes=[0, 1, 2])
        seen |= set(X[i : i + 40].indices.tolist())
        assert learned.net_.network.sparse_input.columns.tolist() == sorted(seen)
    for _ in range(10):
        for i in range(0, 240, 40):
            learned.partial_fit(X[i : i + 40], y[i : i + 40])
    assert learned.score(X, topics) > 0.75


@pytest.mark.parametrize(
    ("optimizer", "params"),
    [
        (torch.optim.Adam, {}),
        (torch.optim.AdamW, {"amsgrad": True}),
        (torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.Adagrad, {}),
    ],
    ids=["Adam", "AdamW", "SGD", "Adagrad"],
)
def test_the_optimiser_goes_on_when_columns_come(optimizer, params):
    """Columns that come late have lost nothing, if all that was done without them is as it was."""
    X, _, y = data()
    params = {f"optimizer__{name}": value for name, value in params.items()}
    params |= {"optimizer": optimizer, "noise_model": None, "lr": 0.1}
    known, late = X[:80], X[80:160]

    def stream(first):
        learned = classifier(**params).partial_fit(first, y[:80], classes=[0, 1, 2])
        learned.net_.network.sparse_input.weight.data[
            ~torch.as_tensor(np.isin(learned.net_.network.sparse_input.columns, known.indices))
        ] = 0.0  # where the other stream will begin with those columns
        return learned.partial_fit(late, y[80:160]).partial_fit(known, y[:80])

    # The columns of the second chunk occur in the first one, with the value zero.
    zeros = sparse.csr_array((np.zeros(late.nnz), late.indices, late.indptr), shape=(80, N_COLUMNS))
    both = sparse.hstack([known, zeros]).tocoo()
    both = sparse.csr_array((both.data, (both.row, both.col % N_COLUMNS)), shape=(80, N_COLUMNS))
    assert set(both.indices) >= set(late.indices)
    assert_allclose(
        stream(known).predict_proba(X), stream(both).predict_proba(X), rtol=0, atol=1e-6
    )


def test_a_failed_call_leaves_a_stream_without_the_new_columns():
    X, _, y = data()
    learned = classifier().partial_fit(X[:80], y[:80], classes=[0, 1, 2])
    before = learned.predict_proba(X), learned.net_.network.sparse_input.columns.tolist()

    class Failing(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise OSError("no more paper")

    learned.set_params(callbacks=[Failing()])
    with pytest.raises(OSError, match="paper"):
        learned.partial_fit(X[80:], y[80:])
    assert_array_equal(learned.predict_proba(X), before[0])
    assert learned.net_.network.sparse_input.columns.tolist() == before[1]


def test_warm_starts_and_streams_after_a_fit_learn_more_columns():
    X, topics, y = data()
    warm = classifier(warm_start=True).fit(X[:100], y[:100])
    warm.fit(X, y)
    assert_array_equal(warm.net_.network.sparse_input.columns, np.unique(X.indices))
    after_fit = classifier(max_epochs=20).fit(X[:100], y[:100])
    for _ in range(15):
        after_fit.partial_fit(X[100:], y[100:])
    assert_array_equal(after_fit.net_.network.sparse_input.columns, np.unique(X.indices))
    assert after_fit.score(X[100:], topics[100:]) > 0.8
    after_fit.partial_fit(X.toarray(), y)  # dense rows go on as well


def test_copies_and_files_predict_the_same(tmp_path):
    X, _, y = data()
    fitted = classifier().fit(X, y)
    save_model(fitted, tmp_path / "model.skops")
    assert (tmp_path / "model.skops").stat().st_size < 8 * 100 * N_COLUMNS / 2
    copies = [copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))]
    for again in [*copies, load_model(tmp_path / "model.skops")]:
        assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
        again.partial_fit(X[:40], y[:40])


@pytest.mark.parametrize(
    "convert", [sparse.csr_matrix, sparse.csc_array, sparse.coo_matrix, sparse.lil_array]
)
def test_every_sparse_format_is_taken(convert):
    X, _, y = data()
    expected = classifier().fit(X, y).predict_proba(X)
    assert_array_equal(classifier().fit(convert(X), y).predict_proba(convert(X)), expected)


def test_counts_of_words_are_taken():
    X, topics, y = data()
    counts = (X != 0).astype("int64")
    fitted = classifier(max_epochs=20).fit(counts, y)
    assert fitted.net_.dtype == torch.float32
    assert fitted.score(counts, topics) > 0.75


def test_other_data_and_modules_of_the_user_get_dense_batches():
    X, _, y = data()

    class Dense(nn.Linear):
        def forward(self, X):
            assert type(X) is torch.Tensor
            return super().forward(X).relu()

    classifier(module=lambda: Dense(N_COLUMNS, 8), max_epochs=1).fit(X, y).predict(X)
    for given in (X[:, :500], sparse.csr_array(X.toarray() + 1.0)):
        assert classifier(max_epochs=1).fit(given, y).net_.network.sparse_input is None


def test_pipelines_and_searches_over_texts_work():
    lines, topics, observed = texts()
    model = make_pipeline(HashingVectorizer(), classifier())
    search = GridSearchCV(model, {"noisylabelclassifier__dropout": [0.0, 0.2]}, cv=2)
    assert search.fit(lines, observed).score(lines, topics) > 0.85


def test_a_million_columns_are_never_made_dense(monkeypatch):
    lines, topics, observed = texts()
    X = HashingVectorizer(n_features=2**20).transform(lines)
    most = 0
    dense = ArrayDataset._dense

    def noted(dataset, at):
        nonlocal most
        rows = dense(dataset, at)
        most = max(most, len(rows))
        return rows

    monkeypatch.setattr(ArrayDataset, "_dense", noted)
    tracemalloc.start()
    classifier(max_epochs=1).fit(X[:100], observed[:100]).predict_proba(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most <= 2  # the rows that the network is tried with
    assert peak < 2**20 * 8 * 32  # numbers of a column; a batch has 64 dense rows or more
    fitted = classifier(max_epochs=10).fit(X, observed)
    assert len(fitted.net_.network.sparse_input.weight) < 1000
    assert fitted.score(X, topics) > 0.85
