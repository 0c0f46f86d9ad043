"""A fit in several processes is the fit of one process with their batches put together."""

import numpy as np
import pytest
from fits import LOADER, TRANSITION, N, Normalised, fit, learn_stream
from numpy.testing import assert_allclose
from skorch.callbacks import GradientNormClipping, LRScheduler

SMALL = {"early_stopping": True, "validation_fraction": 70 / N}
TAKEN_FOR_GRANTED = {"select_noise_model": False}
ODD = 14  # of 170 rows the last batch of three processes has two

FITS = {
    "plain": ({"noise_model": None}, "plain"),
    "s": ({}, "plain"),
    "s, held out": (SMALL, "plain"),
    "c": ({"noise_model": "c", **SMALL}, "plain"),
    "c, few targets": ({"noise_model": "c", "n_noise_targets": 2, **SMALL}, "plain"),
    "em": ({"method": "em", "select_noise_model": False, **SMALL}, "plain"),
    "known matrix": ({"transition_init": TRANSITION, "learn_transition": False}, "plain"),
    "volume": ({"volume_penalty": 0.1, "transition_init": TRANSITION, **SMALL}, "plain"),
    "confusion": ({"transition_init": "confusion", **SMALL}, "plain"),
    "hard": ({"transition_init": "hard_confusion", "noise_model": "c", **SMALL}, "plain"),
    "auto": ({"noise_model": "auto", **SMALL}, "plain"),
    "several networks": ({"n_networks": 2, **SMALL}, "plain"),
    "several networks, folds": ({"n_networks": 2}, "plain"),
    "weights": (SMALL, "weights"),
    "zero weights": (SMALL, "zero weights"),
    "trusted": (SMALL, "trusted"),
    "answers": (SMALL, "answers"),
    "answers, folds": ({"select_noise_model": False}, "answers"),
    "answers, em": ({"method": "em", **SMALL}, "answers"),
    "data set": ({"module": Normalised, **SMALL, **TAKEN_FOR_GRANTED}, "data set"),
    "tensors": ({**SMALL, **TAKEN_FOR_GRANTED}, "arrays"),
    "few rows of each": (
        {"hidden_layer_sizes": (20,), **TAKEN_FOR_GRANTED},
        "few rows of each",
    ),
    "strings": ({**SMALL, **TAKEN_FOR_GRANTED}, "strings"),
    "sparse": ({"noise_model": None, **SMALL}, "sparse"),
    "batch norm": ({"module": Normalised, **SMALL}, "plain"),
    "clipping": (
        {"callbacks": [GradientNormClipping(0.1), LRScheduler("StepLR", step_size=1)], **SMALL},
        "plain",
    ),
    "weight decay": ({"optimizer__weight_decay": 0.1, **SMALL, **TAKEN_FOR_GRANTED}, "plain"),
}


def check_equal(one, several):
    """All processes have the same bits, and what one process has up to rounding."""
    for other in several[1:]:
        assert other["weights"] == several[0]["weights"]
        assert other["history"] == several[0]["history"]
        assert other["selection"] == several[0]["selection"]
        assert_allclose(other["prior"], several[0]["prior"], rtol=0, atol=0)
    for name in ("proba", "noisy", "matrix", "prior", "quality"):
        assert_allclose(several[0][name], one[name], atol=1e-4, err_msg=name)
    assert several[0]["n_iter"] == one["n_iter"]
    assert several[0]["classes"] == one["classes"]
    for mine, expected in zip(several[0]["history"], one["history"], strict=True):
        assert mine.keys() == expected.keys()
        assert_allclose(mine["train_loss"], expected["train_loss"], atol=1e-4)
        sizes = [batch["train_batch_size"] for batch in mine["batches"] if "train_loss" in batch]
        assert sum(sizes) == sum(
            batch["train_batch_size"] for batch in expected["batches"] if "train_loss" in batch
        )


@pytest.mark.parametrize("name", FITS)
def test_two_processes_are_one_with_the_doubled_batch(two, name):
    params, kind = FITS[name]
    check_equal(fit(0, params, kind, 32), two.run(fit, params, kind, 16))


@pytest.mark.parametrize(
    "name", ["c", "em", "zero weights", "trusted", "answers", "data set", "sparse", "strings"]
)
def test_shards_are_the_rows_of_all_processes(two, name):
    params, kind = FITS[name]
    check_equal(fit(0, params, kind, 32), two.run(fit, params, kind, 16, [0, 70, N]))


@pytest.mark.parametrize("bounds", [None, [0, 3, 200, N]], ids=["rows of all", "shards"])
@pytest.mark.parametrize("name", ["em", "answers", "data set"])
def test_three_processes_of_which_some_have_no_row_in_a_batch(three, name, bounds):
    params, kind = FITS[name][0] | {"max_epochs": 1}, FITS[name][1]
    check_equal(fit(0, params, kind, 3 * ODD), three.run(fit, params, kind, ODD, bounds))


@pytest.mark.parametrize("bounds", [None, [0, 3, 100, 200, N]], ids=["rows of all", "shards"])
def test_four_processes_are_one_with_four_batches(four, bounds):
    params, kind = FITS["weights"][0] | {"max_epochs": 1}, FITS["weights"][1]
    check_equal(fit(0, params, kind, 4 * ODD), four.run(fit, params, kind, ODD, bounds))


@pytest.mark.parametrize("bounds", [None, [0, 70, N]], ids=["rows of all", "shards"])
@pytest.mark.parametrize("kind", ["answers", "trusted", "sparse"])
def test_a_stream_is_that_of_one_process(two, kind, bounds):
    params = {"transition_init": TRANSITION} if kind == "trusted" else {}
    one = learn_stream(0, params, kind, 32)
    check_equal(one, two.run(learn_stream, params, kind, 16, bounds))


def test_automatic_batches_have_as_many_rows_in_several_processes(two):
    check_equal(fit(0, SMALL, batch_size="auto"), two.run(fit, SMALL, "plain", "auto"))


def test_processes_choose_the_same_share_of_dropout(two):
    several = two.run(fit, {"dropout": "auto", **SMALL})
    check_equal(several[0], several)


def test_processes_drop_different_units_and_end_with_the_same_bits(two):
    params = {"dropout": 0.5, "n_networks": 2, "noise_model": None, **SMALL}
    several = two.run(fit, params)
    check_equal(several[0], several)
    one = fit(0, params, batch_size=32)
    assert np.abs(several[0]["proba"] - one["proba"]).max() > 1e-4


def test_a_loader_gives_each_process_its_rows(two):
    params = {"module": Normalised, **LOADER, **SMALL, "noise_model": None}
    check_equal(fit(0, params | {"iterator_train": None}, "plain", 32), two.run(fit, params))


def test_without_a_seed_all_processes_have_that_of_the_first_one(two):
    several = two.run(fit, {"random_state": None, "noise_model": None, **SMALL})
    check_equal(several[0], several)
    again = two.run(fit, {"random_state": None, "noise_model": None, **SMALL})
    assert again[0]["weights"] != several[0]["weights"]
