"""Seeds decide everything, and the global generators are left as they were."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from sknoisy._support.random import draw_seed, new_rng, torch_seeded


@pytest.fixture(autouse=True)
def global_generators_stay_as_they_are():
    numpy_state = np.random.get_state()  # noqa: NPY002
    torch_state = torch.get_rng_state()
    yield
    after = np.random.get_state()  # noqa: NPY002
    assert_array_equal(after[1], numpy_state[1])
    assert after[2:] == numpy_state[2:]
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_same_seed_same_stream():
    first, second = new_rng(3), new_rng(3)
    seeds = [draw_seed(first) for _ in range(5)]
    assert seeds == [draw_seed(second) for _ in range(5)]
    assert len(set(seeds)) == 5
    assert draw_seed(new_rng(4)) != seeds[0]


def test_a_generator_is_used_and_advanced_as_in_scikit_learn():
    generator = np.random.RandomState(0)
    assert new_rng(generator) is generator
    assert draw_seed(new_rng(generator)) != draw_seed(new_rng(generator))


def test_none_is_new_entropy_and_not_the_global_generator():
    assert draw_seed(new_rng(None)) != draw_seed(new_rng(None))


def test_what_is_no_seed_is_refused():
    with pytest.raises(ValueError, match="'seed' cannot be used to seed"):
        new_rng("seed")


def test_drawn_seeds_are_python_integers_that_torch_takes():
    seed = draw_seed(new_rng(0))
    assert type(seed) is int
    assert 0 <= seed < 2**31
    torch.Generator().manual_seed(seed)


def test_same_seed_same_values_inside_the_block():
    def draw(seed):
        with torch_seeded(seed):
            return torch.rand(3), torch.nn.Linear(2, 2).weight.detach()

    for first, second in zip(draw(5), draw(5), strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(draw(5)[0], draw(6)[0])


def test_blocks_can_be_nested():
    with torch_seeded(0):
        torch.rand(1)
        expected = torch.rand(1)
    with torch_seeded(0):
        torch.rand(1)
        with torch_seeded(1):
            torch.rand(10)
        assert torch.equal(torch.rand(1), expected)


def test_generators_are_put_back_after_an_error():
    with pytest.raises(RuntimeError, match="stop"), torch_seeded(0):
        torch.rand(1)
        raise RuntimeError("stop")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda", 0)])
def test_the_generator_of_the_accelerator_is_seeded_and_put_back(device):
    before = torch.cuda.get_rng_state(device)
    with torch_seeded(5, device):
        first = torch.rand(3, device=device)
    with torch_seeded(5, device):
        second = torch.rand(3, device=device)
    assert torch.equal(first, second)
    assert torch.equal(torch.cuda.get_rng_state(device), before)
