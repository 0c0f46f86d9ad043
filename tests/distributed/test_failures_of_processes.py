"""What fails in one process ends the fit in all of them, and leaves every estimator as it was."""

import os
import signal
import time

import numpy as np
import pytest
import torch.distributed as dist
from fits import N, arguments_of, part_of, rows
from skorch.callbacks import Callback
from torch import nn

from sknoisy import NoisyLabelClassifier
from sknoisy._distributed import joining

PARAMS = {"hidden_layer_sizes": (6,), "max_epochs": 3, "random_state": 0, "batch_size": 16}
PARAMS |= {"noise_model": None, "early_stopping": False}  # one stage


class Raise(Callback):
    """Do something bad in an epoch of one process."""

    def __init__(self, what, rank, epoch=2):
        self.what = what
        self.rank = rank
        self.epoch = epoch

    def on_epoch_end(self, net, **kwargs):
        if dist.get_rank() != self.rank or net.history[-1, "epoch"] < self.epoch:
            return
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise self.what("on purpose")


def attempt(rank, change, by_rank=(), method="fit", bounds=None):
    """Fit, and again with something wrong; return the error and what is left."""
    args, kwargs = arguments_of("plain", part_of(rank, bounds))
    distributed = "auto" if bounds is None else "sharded"
    classifier = NoisyLabelClassifier(distributed=distributed, **PARAMS)
    learn = getattr(classifier, method)
    more = {"classes": range(3)} if method == "partial_fit" else {}
    learn(*args, **kwargs, **more)
    before = classifier.predict_proba(rows()[0])
    attributes = set(vars(classifier))
    classifier.set_params(**change)
    if by_rank and rank == by_rank[0]:
        args = by_rank[1](*args)
    began, error = time.monotonic(), None
    try:
        learn(*args, **kwargs, **more)
    except BaseException as caught:
        error = type(caught).__name__, str(caught)
    same = np.array_equal(classifier.predict_proba(rows()[0]), before)
    return error, same, set(vars(classifier)) - attributes, time.monotonic() - began


def with_nan(X, y):
    X = X.copy()
    X[3, 0] = np.nan
    return X, y


def with_other_labels(X, y):
    return X, y[::-1]


def with_fewer_columns(X, y):
    return X[:, :4], y


def with_short_labels(X, y):
    return X, y[:-1]


def check_failed(outcomes, expected):
    for (error, same, more, seconds), (kind, message) in zip(outcomes, expected, strict=True):
        assert error is not None
        assert error[0] == kind, error
        assert message in error[1]
        assert same
        assert not more
        assert seconds < 60


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("bounds", [None, [0, 70, N]], ids=["rows of all", "shards"])
def test_bad_rows_in_one_process(two, method, bounds):
    outcomes = two.run(attempt, {}, (1, with_nan), method, bounds)
    lost = "LostProcessError", "process 1 failed: ValueError: `X` must"
    check_failed(outcomes, [lost, ("ValueError", "NaN")])


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (RuntimeError, "process 1 failed: RuntimeError: on purpose"),
        (KeyboardInterrupt, "was inter"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_an_exception_or_ctrl_c_in_an_epoch(three, error, named, method):
    # A stream takes new callbacks with a new optimiser.
    change = {"callbacks": [Raise(error, 1, 2 if method == "fit" else 1)], "lr": 0.02}
    outcomes = three.run(attempt, change, (), method)
    lost = "LostProcessError", named
    check_failed(outcomes, [lost, (error.__name__, "on purpose"), lost])


def test_processes_that_differ_all_say_where(two):
    for change, bounds, message in (
        ((1, with_other_labels), None, "the same labels"),
        ((1, with_other_labels), None, "distributed='sharded'"),
        ((0, with_fewer_columns), [0, 70, N], "the same rows of shape"),
    ):
        outcomes = two.run(attempt, {}, change, "fit", bounds)
        check_failed(outcomes, [("ValueError", message)] * 2)
    outcomes = two.run(attempt, {}, (1, with_short_labels), "fit", [0, 70, N])
    check_failed(outcomes, [("LostProcessError", "`y` must"), ("ValueError", "each row of X, 170")])


def differ(rank):
    classifier = NoisyLabelClassifier(**PARAMS | {"dropout": 0.1 * rank})
    with pytest.raises(ValueError, match="all processes must have the same dropout"):
        classifier.fit(*arguments_of("plain", slice(None))[0])


def test_parameters_that_differ_are_named(two):
    two.run(differ)


class SparseGradients(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.EmbeddingBag(6, 4, sparse=True)

    def forward(self, X):
        return self.words(X.abs().long().clamp(max=5))


def refused(rank, params, match):
    classifier = NoisyLabelClassifier(**{"max_epochs": 1, "random_state": 0} | params)
    with pytest.raises(ValueError, match=match):
        classifier.fit(*arguments_of("plain", slice(None))[0])
    assert not hasattr(classifier, "net_")


class OwnBatches:
    def __init__(self, dataset, batch_size):
        self.dataset = dataset

    def __iter__(self):
        yield self.dataset.take(slice(0, 10))


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"on_interrupt": "keep"}, "on_interrupt='keep' needs one process.* distributed=False"),
        ({"iterator_train": OwnBatches}, "`iterator_train` gives the rows an order of its own"),
        (
            {"module": SparseGradients, "optimizer": "SGD"},
            "`module` must have dense gradients.* distributed=False",
        ),
    ],
)
def test_what_several_processes_cannot_do_is_refused(two, params, match):
    import torch

    if params.get("optimizer"):
        params = params | {"optimizer": torch.optim.SGD}
    two.run(refused, params, match)


def fit_alone(rank):
    """One process fits while the others do not."""
    classifier = NoisyLabelClassifier(distributed=False, **PARAMS)
    classifier.fit(*arguments_of("plain", slice(None))[0])
    return classifier.predict_proba(rows()[0])


def test_without_distributed_a_process_fits_alone(two):
    (returned, proba), *_ = two.outcomes(fit_alone, ranks=[1])
    assert returned
    np.testing.assert_array_equal(proba, fit_alone(0))


def test_a_group_of_one_process_changes_nothing(tmp_path):
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1
    )
    try:
        args, _ = arguments_of("plain", slice(None))
        for distributed in ("auto", "sharded"):
            classifier = NoisyLabelClassifier(distributed=distributed, **PARAMS).fit(*args)
            np.testing.assert_array_equal(classifier.predict_proba(rows()[0]), fit_alone(0))
    finally:
        dist.destroy_process_group()


def fit_before_others(rank, limit):
    joining._MOST_SECONDS_TO_ARRIVE = limit
    joining._SECONDS_TO_WARN = 0.1
    with (
        pytest.warns(RuntimeWarning, match="1 of 2 have called fit or partial_fit"),
        pytest.raises(RuntimeError, match="Set distributed=False to fit alone"),
    ):
        NoisyLabelClassifier(**PARAMS).fit(*arguments_of("plain", slice(None))[0])


def test_a_process_that_nobody_joins_ends_with_an_error(pair):
    ((returned, value),) = pair.outcomes(fit_before_others, 1.0, ranks=[0])
    assert returned, value


def fit_until_killed(rank, params):
    return attempt(rank, params)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_process_ends_the_other_within_a_minute(pair):
    (answer,) = pair.outcomes_of_living(fit_until_killed, {"callbacks": [Raise("kill", 1)]}, [0])
    returned, outcome = answer
    assert returned, outcome
    check_failed(
        [outcome], [("LostProcessError", "because process 1 no longer answers: it was killed")]
    )
