"""How many threads a fit takes, and that they are given back."""

import pytest
import torch
from sklearn.datasets import make_blobs
from skorch.callbacks import Callback
from threadpoolctl import threadpool_info
from torch import nn

from sknoisy import NoisyLabelClassifier
from sknoisy._support.threads import threads_for_classes


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


SEEN = {}


class Watch(Callback):
    """Write down the threads of each stage."""

    def on_epoch_end(self, net, **kwargs):
        SEEN[net.history[-1, "stage"]] = torch.get_num_threads()


class Conv(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 2, 3), nn.Flatten())


def threads(**params):
    SEEN.clear()
    X, y = make_blobs(300, 40, centers=3, random_state=0)
    NoisyLabelClassifier(
        max_epochs=1, select_noise_model=False, callbacks=[Watch()], random_state=0, **params
    ).fit(X, y)
    assert torch.get_num_threads() == 2
    return {stage: n_threads for stage, n_threads in SEEN.items() if stage != "start"}


def test_small_steps_take_one_thread():
    assert threads() == {"baseline": 1, "s": 1}


def test_large_steps_take_all():
    assert threads(hidden_layer_sizes=(3000,), batch_size=256) == {"baseline": 2, "s": 2}


def test_the_noise_layer_of_the_c_model_counts():
    found = threads(noise_model="c", hidden_layer_sizes=(800,), batch_size=117)
    assert found == {"baseline": 1, "s": 1, "c": 1}
    found = threads(noise_model="c", hidden_layer_sizes=(800,), batch_size=130)
    assert found == {"baseline": 1, "s": 1, "c": 2}


def test_modules_of_other_layers_take_all():
    assert threads(module=Conv) == {"baseline": 2, "s": 2}


def test_threads_come_back_after_an_error():
    X, y = make_blobs(300, 4, random_state=0)
    with pytest.raises(ValueError, match="became"):
        NoisyLabelClassifier(lr=1e300, random_state=0).fit(X * 1e10, y)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("n_classes", [10, 1000])
def test_pools_are_limited_for_few_classes_only(n_classes):
    before = [pool["num_threads"] for pool in threadpool_info()]
    with threads_for_classes(n_classes):
        inside = [pool["num_threads"] for pool in threadpool_info()]
    assert inside == ([1] * len(before) if n_classes <= 30 else before)
    assert [pool["num_threads"] for pool in threadpool_info()] == before
