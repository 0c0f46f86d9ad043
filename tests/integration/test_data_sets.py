"""Data sets as X: rows fetched when a batch needs them, and split by scikit-learn by number."""

import tracemalloc

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    GroupKFold,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    permutation_test_score,
    train_test_split,
    validation_curve,
)
from sklearn.pipeline import make_pipeline
from sklearn.utils import resample, shuffle
from skorch.helper import SliceDataset
from torch import nn
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)

from sknoisy import IndexableDataset, NoisyLabelClassifier
from sknoisy.exceptions import UnreliableFitWarning
from sknoisy.inspection import find_label_issues, label_quality, noise_test
from sknoisy.metrics import noisy_log_likelihood_scorer
from sknoisy.noise import corrupt_labels, pair_transition


class Pictures(Dataset):
    """Pictures with labels; remembers what was fetched, and may add noise each time."""

    def __init__(self, X, y, noise=0.0):
        self.X, self.y, self.noise = torch.as_tensor(X), y, noise
        self.fetched = np.zeros(len(y), dtype=int)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        self.fetched[i] += 1
        x = self.X[i]
        return (x + self.noise * torch.randn(x.shape) if self.noise else x), self.y[i]


def layers():
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.1))


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    keep = y < 3
    X, y = (X[keep] / 16).astype("float32"), y[keep]
    return X, corrupt_labels(y, pair_transition(3, 0.2), random_state=0), y


@pytest.fixture
def quick():
    return NoisyLabelClassifier(
        layers, noise_model=None, early_stopping=False, max_epochs=2, random_state=0
    )


# --- A data set is the array of its items --------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        {"noise_model": "s", "early_stopping": "auto"},
        {"module": None},
        {"early_stopping": True, "noise_model": "c"},
        {"noise_model": "s", "method": "em", "max_em_iter": 2},
        {"iterator_train__num_workers": 1, "batch_size": 90},
    ],
    ids=lambda params: "-".join(params) or "default",
)
def test_a_data_set_gives_the_result_of_the_array_of_its_items(params, digits, quick):
    X, z, _ = digits
    weight = np.linspace(0.5, 1.5, len(z))
    quick.set_params(**params)
    found = clone(quick).fit(Pictures(X, z), sample_weight=weight)
    arrays = {k: v for k, v in params.items() if "__" not in k}
    for name in set(params) - set(arrays):
        delattr(quick, name)
    expected = quick.set_params(**arrays).fit(X, z, sample_weight=weight)
    assert_array_equal(found.predict_proba(Pictures(X, z)), expected.predict_proba(X))
    assert_array_equal(found.predict_proba(X), expected.predict_proba(X))
    assert_allclose(found.transition_matrix_, expected.transition_matrix_, rtol=1e-12)
    posterior = found.label_posterior(Pictures(X, z), z)
    assert_allclose(posterior, expected.label_posterior(X, z), rtol=1e-12)


def test_labels_come_from_y_where_it_is_given_and_else_from_the_items(digits, quick):
    X, z, _ = digits
    names = np.array(["ant", "bee", "cow"])
    from_y = clone(quick).fit(Pictures(X, np.zeros(len(z))), names[z])
    from_items = clone(quick).fit(Pictures(X, names[z].tolist()))
    assert from_y.classes_.tolist() == from_items.classes_.tolist() == names.tolist()
    assert_array_equal(from_y.predict_proba(X), from_items.predict_proba(X))
    without = clone(quick).fit(TensorDataset(torch.as_tensor(X)), names[z])
    assert_array_equal(without.predict_proba(X), from_y.predict_proba(X))


def test_answers_of_annotators_go_with_a_data_set(digits, quick):
    X, z, y = digits
    answers = np.stack([z, y, np.roll(y, 1)], axis=1)
    quick.set_params(noise_model="s", select_noise_model=False, transition_init=np.eye(3))
    found = clone(quick).fit(Pictures(X, z), answers)
    expected = clone(quick).fit(X, answers)
    assert_array_equal(found.annotator_transitions_, expected.annotator_transitions_)
    assert_array_equal(
        found.label_posterior(Pictures(X, z), answers), expected.label_posterior(X, answers)
    )


@pytest.mark.parametrize("kind", ["data set", "dict"])
def test_checked_labels_go_with_data_sets(kind, digits, quick):
    X, z, y = digits
    checked = np.arange(len(z)) < 60
    labels = np.where(checked, y, z)
    quick.set_params(noise_model="s", transition_init=np.eye(3), select_noise_model=False)
    expected = clone(quick).fit(X, labels, trusted=checked, noisy_label=z)
    rows = Pictures(X, labels)
    if kind == "dict":
        rows = {"input": X}
        quick.set_params(module=lambda: ByName(layers()))
    found = quick.fit(rows, labels, trusted=checked, noisy_label=z)
    assert_array_equal(found.predict_proba(rows), expected.predict_proba(X))


class ByName(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, input):
        return self.layers(input)


# --- Augmentation --------------------------------------------------------------------------------


def test_training_fetches_once_an_epoch_and_evaluation_from_its_own_view(digits, quick):
    X, z, _ = digits
    train, plain = Pictures(X, z, noise=0.5), Pictures(X, z)
    rows = IndexableDataset(train, evaluation=plain)
    quick.set_params(max_epochs=3).fit(rows, z)
    assert_array_equal(train.fetched, 3)
    seen = plain.fetched.copy()
    proba = quick.predict_proba(rows)
    assert_array_equal(train.fetched, 3)
    assert plain.fetched.sum() > seen.sum()
    assert_array_equal(proba, quick.predict_proba(Pictures(X, z)))


def test_augmentation_changes_the_training_and_the_seed_gives_it_again(digits, quick):
    X, z, _ = digits
    rows = IndexableDataset(Pictures(X, z, noise=0.5), evaluation=Pictures(X, z))
    first, again = (clone(quick).fit(rows, z).predict_proba(rows) for _ in range(2))
    assert_array_equal(first, again)
    assert not np.allclose(first, quick.fit(X, z).predict_proba(X))
    quick.set_params(max_epochs=1, iterator_train__num_workers=1, iterator_valid__num_workers=0)
    in_worker, again = (clone(quick).fit(rows, z).predict_proba(rows) for _ in range(2))
    assert_array_equal(in_worker, again)


class Transformed(Pictures):
    def __init__(self, X, y, transform=None):
        super().__init__(X, y)
        self.transform = transform

    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return self.transform(x), y


def add_noise(x):
    return x + torch.randn(x.shape)


def test_eval_transform_takes_the_place_of_the_transform_in_a_copy(digits):
    X, z, _ = digits
    data = Transformed(X, z, add_noise)
    for dataset in (data, Subset(data, range(20))):
        rows = IndexableDataset(dataset, eval_transform=torch.square)
        assert_array_equal(rows.inputs([3])[0], X[3] ** 2)
        assert not torch.equal(rows[3][0], rows[3][0])
    assert data.transform is add_noise
    with pytest.raises(ValueError, match=r"`eval_transform` needs.*Pictures has none"):
        IndexableDataset(Pictures(X, z), eval_transform=torch.square)
    with pytest.raises(ValueError, match="Only one of"):
        IndexableDataset(data, evaluation=data, eval_transform=torch.square)


def test_augmentation_that_reaches_evaluation_is_warned_of(digits, quick):
    X, z, _ = digits
    with pytest.warns(UnreliableFitWarning, match=r"differ each time.*evaluation="):
        quick.fit(Pictures(X, z, noise=0.1), z)


# --- What scikit-learn does with rows ------------------------------------------------------------

GRID = {"lr": [1e-3, 1e-2]}
SPLITS = {"cv": 2}


def fitted_predictions(make):
    return lambda model, X, y: make(model).fit(X, y).predict_proba(X)


USES = {
    "cross_val_score": lambda m, X, y: cross_val_score(m, X, y, **SPLITS),
    "cross_validate": lambda m, X, y: cross_validate(
        m, X, y, scoring=noisy_log_likelihood_scorer, **SPLITS
    )["test_score"],
    "cross_val_predict": lambda m, X, y: cross_val_predict(m, X, y, **SPLITS),
    "groups": lambda m, X, y: cross_val_score(
        m, X, y, groups=np.arange(len(y)) % 4, cv=GroupKFold(2)
    ),
    "GridSearchCV": lambda m, X, y: GridSearchCV(m, GRID, **SPLITS).fit(X, y).predict_proba(X),
    "RandomizedSearchCV": lambda m, X, y: (
        RandomizedSearchCV(m, GRID, n_iter=1, random_state=0, **SPLITS)
        .fit(X, y)
        .cv_results_["mean_test_score"]
    ),
    "learning_curve": lambda m, X, y: learning_curve(
        m, X, y, train_sizes=[0.5, 1.0], shuffle=True, random_state=0, **SPLITS
    )[2],
    "validation_curve": lambda m, X, y: validation_curve(
        m, X, y, param_name="lr", param_range=[1e-2], **SPLITS
    )[1],
    "permutation_test_score": lambda m, X, y: permutation_test_score(
        m, X, y, n_permutations=1, random_state=0, **SPLITS
    )[0],
    "train_test_split": lambda m, X, y: (
        lambda parts: m.fit(parts[0], parts[2]).predict_proba(parts[1])
    )(train_test_split(X, y, stratify=y, random_state=0)),
    "shuffle": lambda m, X, y: m.fit(*shuffle(X, y, random_state=0)).predict_proba(X),
    "resample": lambda m, X, y: m.fit(*resample(X, y, random_state=0)).predict_proba(X),
    "CalibratedClassifierCV": fitted_predictions(lambda m: CalibratedClassifierCV(m, cv=2)),
    "FrozenEstimator": lambda m, X, y: FrozenEstimator(m.fit(X, y)).predict_proba(X),
    "Pipeline": fitted_predictions(lambda m: make_pipeline("passthrough", m)),
    "VotingClassifier": fitted_predictions(lambda m: VotingClassifier([("m", m)], voting="soft")),
    "StackingClassifier": fitted_predictions(
        lambda m: StackingClassifier([("m", m)], LogisticRegression(), cv=2)
    ),
    "FixedThresholdClassifier": lambda m, X, y: (
        FixedThresholdClassifier(m, threshold=0.4, pos_label=1).fit(X, y > 0).predict(X)
    ),
    "TunedThresholdClassifierCV": lambda m, X, y: (
        TunedThresholdClassifierCV(m, cv=2).fit(X, y > 0).best_threshold_
    ),
    "score": lambda m, X, y: m.fit(X, y).score(X, y),
    "mask": lambda m, X, y: m.fit(X[y < 2], y[y < 2]).predict_proba(X),
    "label_quality": lambda m, X, y: label_quality(m.fit(X, y), X, y),
    "find_label_issues": lambda m, X, y: find_label_issues(m, X, y, cv=2).all_quality,
    "noise_test": lambda m, X, y: noise_test(m, X, y, cv=2).pvalue,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_scikit_learn_does_with_a_data_set_what_it_does_with_an_array(use, digits, quick):
    X, z, _ = digits
    X, z = X[:200], z[:200]
    quick.set_params(max_epochs=1)
    if use in [USES[name] for name in ("label_quality", "find_label_issues", "noise_test")]:
        quick.set_params(noise_model="s", transition_init=np.eye(3), select_noise_model=False)
    data = Pictures(X, z)
    found = use(clone(quick), IndexableDataset(data), z)
    assert_array_equal(found, use(clone(quick), X, z))
    assert data.fetched.sum() > 0


def test_a_part_of_a_data_set_is_row_numbers(digits):
    X, z, _ = digits
    data = Pictures(X, z)
    rows = IndexableDataset(data)
    part = rows[10:50][[4, 2]][np.array([True, False])]
    assert part.dataset is data
    assert part.indices.tolist() == [14]
    assert data.fetched.sum() == 0
    assert part.shape == (1,)
    assert part.targets.tolist() == [z[14]]
    assert_array_equal(part[0][0], X[14])
    assert_array_equal(part[-1][0], X[14])
    assert [label for _, label in rows[:3]] == z[:3].tolist()
    assert repr(part) == f"IndexableDataset(1 of {len(z)} rows of Pictures)"
    with pytest.raises(IndexError, match="row 1 of a data set of 1 rows"):
        part[1]
    with pytest.raises(IndexError):
        rows[[len(z)]]


def test_a_stream_of_chunks_of_a_data_set(digits, quick):
    X, z, _ = digits
    rows = IndexableDataset(Pictures(X, z))
    streamed, expected = clone(quick), clone(quick)
    for part in np.array_split(np.arange(len(z)), 3):
        streamed.partial_fit(rows[part], classes=[0, 1, 2])
        expected.partial_fit(X[part], z[part], classes=[0, 1, 2])
    assert_array_equal(streamed.predict_proba(rows), expected.predict_proba(X))


def test_issues_of_a_data_set_show_its_pictures(digits, quick):
    X, z, _ = digits
    data = Pictures(X.reshape(-1, 1, 8, 8)[:200], z[:200])
    quick.set_params(module=lambda: nn.Sequential(nn.Flatten(), layers()))
    quick.set_params(noise_model="s", transition_init=np.eye(3), select_noise_model=False)
    issues = find_label_issues(quick, data, z[:200], cv=2)
    assert issues.count > 0
    assert issues.contents.kind == "picture"
    assert issues.contents.picture(int(issues.indices[0])).startswith("data:image/png")
    assert {"row", "observed_labels", "nearest_1"} <= set(issues.frame.columns)


# --- Data sets of others -------------------------------------------------------------------------


def test_labels_that_a_data_set_keeps_are_taken_without_reading_it_if_they_are_right(digits):
    X, z, _ = digits
    data = Pictures(X, z)
    data.targets = z.tolist()
    for dataset, expected in ((data, z), (Subset(data, [5, 3, 1]), z[[5, 3, 1]])):
        data.fetched[:] = 0
        assert_array_equal(IndexableDataset(dataset).targets, expected)
        assert data.fetched.sum() <= 8
    data.targets = np.roll(z, 1).tolist()
    assert_array_equal(IndexableDataset(data).targets, z)
    assert_array_equal(IndexableDataset(ConcatDataset([data, data])).targets, [*z, *z])


def test_slices_of_a_data_set_by_skorch(digits, quick):
    X, z, _ = digits
    data = Pictures(X, z)
    found = clone(quick).fit(SliceDataset(data), SliceDataset(data, idx=1))
    assert_array_equal(found.predict_proba(SliceDataset(data)), quick.fit(X, z).predict_proba(X))


def test_data_sets_of_hugging_face(digits, quick):
    datasets = pytest.importorskip("datasets")
    X, z, _ = digits
    data = datasets.Dataset.from_dict({"pixels": X[:80].tolist(), "label": z[:80].tolist()})
    data = data.with_format("torch")

    class ByName(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = layers()

        def forward(self, pixels):
            return self.layers(pixels)

    found = quick.set_params(module=ByName).fit(data)
    expected = clone(quick).fit({"pixels": X[:80]}, z[:80])
    assert_array_equal(found.predict_proba(data), expected.predict_proba({"pixels": X[:80]}))
    rows = IndexableDataset(data, eval_transform=lambda batch: {"pixels": batch["pixels"]})
    assert set(rows.inputs([0])[0]) == {"pixels"}


class Fetching(Pictures):
    """Gives many items at once."""

    def __getitems__(self, numbers):
        self.calls = [*getattr(self, "calls", []), len(numbers)]
        return [self[i] for i in numbers]


def test_items_of_a_batch_are_fetched_at_once_where_a_data_set_can(digits, quick):
    X, z, _ = digits
    data = Fetching(X, z)
    quick.set_params(batch_size=50).fit(data, z)
    assert data.calls.count(50) == 2 * (len(z) // 50)
    data.X = None
    with pytest.raises(ValueError, match=r"item 0 raised TypeError"):
        quick.predict(data)


@pytest.mark.parametrize("loader", [DataLoader, "own"])
def test_iterators_of_the_user_take_data_sets_and_arrays(loader, digits, quick):
    X, z, _ = digits

    def own(dataset, batch_size):
        return DataLoader(dataset, batch_size=batch_size)

    iterator = own if loader == "own" else loader
    quick.set_params(iterator_train=iterator, iterator_valid=iterator, early_stopping=True)
    if loader == "own":
        found = clone(quick).fit(Pictures(X, z), z).predict_proba(Pictures(X, z))
        assert_array_equal(found, clone(quick).fit(X, z).predict_proba(X))
    else:
        quick.set_params(iterator_train__shuffle=False, iterator_train__drop_last=True)
        found = clone(quick).fit(Pictures(X, z), z).predict_proba(Pictures(X, z))
        assert_array_equal(found, clone(quick).fit(X, z).predict_proba(X))


# --- Files ---------------------------------------------------------------------------------------


def test_folds_of_a_mapped_file_are_row_numbers(quick, tmp_path):
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", "float32", (4000, 500))
    X[:] = np.random.RandomState(0).rand(*X.shape)
    y = (X[:, 0] > 0.5).astype(int)
    X.flush()
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    quick.set_params(module=None, hidden_layer_sizes=(4,), max_epochs=1, batch_size=200)
    quick.set_params(noise_model="s", transition_init=np.eye(2), iterator_valid__batch_size=200)
    find_label_issues(quick, mapped[:200], y[:200], cv=2)
    tracemalloc.start()
    found = find_label_issues(quick, mapped, y, cv=2)
    cross_val_score(quick, IndexableDataset(mapped), y, cv=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.nbytes / 2
    expected = find_label_issues(quick, np.array(mapped), y, cv=2)
    assert_array_equal(found.all_quality, expected.all_quality)


@pytest.mark.parametrize("library", ["h5py", "zarr"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_arrays_of_files_are_read_by_slices(library, dtype, digits, quick, tmp_path):
    library = pytest.importorskip(library)
    X, z, _ = digits
    X, z = (X[:200] * 16).astype(dtype), z[:200]
    if library.__name__ == "h5py":
        stored = library.File(tmp_path / "X.h5", "w").create_dataset("X", data=X)
    else:
        stored = library.open(str(tmp_path / "X.zarr"), mode="w", shape=X.shape, dtype=X.dtype)
        stored[:] = X
    expected = clone(quick).fit(X, z).predict_proba(X)
    assert_array_equal(clone(quick).fit(stored, z).predict_proba(stored), expected)
    scores = cross_val_score(quick, IndexableDataset(stored), z, cv=2)
    assert_array_equal(scores, cross_val_score(quick, X, z, cv=2))


class Stored:
    """An array in a file as h5py gives it: rows by a slice or by rising numbers, each once."""

    def __init__(self, X):
        self.X, self.shape, self.dtype, self.n_slices = X, X.shape, X.dtype, 0

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        assert isinstance(index, slice) or (np.diff(index) > 0).all()
        self.n_slices += isinstance(index, slice)
        return self.X[index]


Stored.__module__ = "h5py"


def test_files_are_read_by_slices_and_by_rising_numbers(digits, quick):
    X, z, _ = digits
    stored = Stored(X)
    found = clone(quick).set_params(batch_size=100).fit(stored, z)
    expected = quick.set_params(batch_size=100).fit(X, z)
    assert_array_equal(found.predict_proba(stored), expected.predict_proba(X))
    assert stored.n_slices > 0
    part = IndexableDataset(stored)[[7, 2, 7]]
    assert_array_equal(np.asarray(part), X[[7, 2, 7]])


def test_tensors_are_taken_as_they_are(digits, quick):
    X, z, _ = digits
    expected = clone(quick).fit(X, z).predict_proba(X)
    tensor = torch.as_tensor(X).requires_grad_()
    assert_array_equal(quick.fit(tensor, torch.as_tensor(z)).predict_proba(tensor), expected)


# --- Bad input -----------------------------------------------------------------------------------


class Odd(Pictures):
    """Goes wrong at item 7."""

    def __init__(self, X, y, what):
        super().__init__(X, y)
        self.what = what

    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        if i == 7:
            if self.what == "raises":
                raise OSError("the file is broken")
            x = {"shape": x[:5], "nothing": None}[self.what]
        return x, y


@pytest.mark.parametrize("workers", [0, 1])
def test_an_item_that_raises_is_named(workers, digits, quick):
    X, z, _ = digits
    quick.set_params(iterator_train__num_workers=workers)
    with pytest.raises(ValueError, match=r"item 7 raised OSError: the file is broken"):
        quick.fit(Odd(X, z, "raises"), z)
    with pytest.raises(NotFittedError):
        quick.predict(X)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("shape", r"item \d+ is of shape \(64,\) and item 7 is of shape \(5,\)|item 7 is of shape"),
        ("nothing", r"item 7 is None"),
    ],
)
def test_items_that_do_not_go_into_a_batch_are_named(what, message, digits, quick):
    X, z, _ = digits
    with pytest.raises(ValueError, match=message):
        quick.fit(Odd(X, z, what), z)


def test_a_worker_that_dies_is_told_of(digits, quick):
    X, z, _ = digits

    class Dying(DataLoader):  # in earnest it would end the tests now and then
        def __iter__(self):
            raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")

    with pytest.raises(RuntimeError, match=r"fetches the items of `X` has died.*num_workers=0"):
        quick.set_params(iterator_train=Dying).fit(Pictures(X, z))


class Iterable(IterableDataset):
    def __iter__(self):
        return iter([])


class Endless(Dataset):
    def __getitem__(self, i):
        return i


BAD = {
    "iterable": (lambda X, z: (Iterable(), z), TypeError, r"map-style.*partial_fit"),
    "no length": (lambda X, z: (Endless(), z), TypeError, r"with a length and items by number"),
    "no labels": (
        lambda X, z: (TensorDataset(torch.as_tensor(X)), None),
        ValueError,
        r"hold no labels.*Pass `y`",
    ),
    "other length": (lambda X, z: (Pictures(X, z), z[1:]), ValueError, r"inconsistent.*\[\d+, \d+"),
    "three parts": (
        lambda X, z: (TensorDataset(*[torch.as_tensor(part) for part in (X, X, z)]), z),
        ValueError,
        r"got 3 parts.*\(\(x1, x2\), label\)",
    ),
    "empty": (lambda X, z: (Pictures(X[:0], z[:0]), z[:0]), ValueError, r"0 sample"),
    "list of items": (
        lambda X, z: ([(torch.as_tensor(x), 0) for x in X], z),
        TypeError,
        r"not a list of its items.*IndexableDataset",
    ),
    "not finite": (
        lambda X, z: (Pictures(np.where(np.arange(len(X))[:, None] == 0, np.nan, X), z), z),
        ValueError,
        r"item 0 holds NaN or infinity",
    ),
    "other rows to evaluate": (
        lambda X, z: (IndexableDataset(Pictures(X, z), evaluation=Pictures(X[1:], z[1:])), z),
        ValueError,
        r"`evaluation` must hold the same rows",
    ),
}


@pytest.mark.parametrize(("make", "error", "message"), BAD.values(), ids=BAD)
def test_bad_data_sets_are_refused(make, error, message, digits, quick):
    X, z, _ = digits
    with pytest.raises(error, match=message):
        quick.fit(*make(X, z))


def test_a_data_set_that_changes_its_length_is_refused(digits, quick):
    X, z, _ = digits

    class Growing(Pictures):
        def __getitem__(self, i):
            item = super().__getitem__(i)
            if self.fetched.sum() == 500:
                self.y = np.append(self.y, 0)
            return item

    with pytest.raises(ValueError, match=r"`X` must keep its length: the data set had \d+ items"):
        quick.fit(Growing(X, z), z)


def test_rows_of_another_kind_than_in_fit_are_refused(digits, quick):
    X, z, _ = digits
    quick.fit(Pictures(X, z))
    with pytest.raises(ValueError, match=r"rows of shape \(63,\).*fitted on rows of shape \(64,\)"):
        quick.predict(Pictures(X[:, 1:], z))
    with pytest.raises(ValueError, match=r"the inputs of one array, as in fit; got pixels"):
        quick.predict({"pixels": X})
    with pytest.raises(TypeError, match="a data set is no array"):
        np.asarray(IndexableDataset(Pictures(X, z)))
