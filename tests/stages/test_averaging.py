"""Several networks as a single one that averages their logits."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from sknoisy._model.network import MLP, NoisyLabelModule
from sknoisy._stages.averaging import averaged

K, D, N = 3, 4, 7


def networks(sizes, model, n_targets=None, columns=None, n=3):
    made = []
    for seed in range(n):
        torch.manual_seed(seed)
        network = NoisyLabelModule(MLP(D, sizes, 0.5, columns), sizes[-1] if sizes else D, K)
        network = network.double().eval()
        transition = np.random.RandomState(seed).dirichlet(np.ones(K), size=K)
        if model == "s":
            network.attach_class_noise(transition, n_targets=n_targets)
        if model == "c":
            network.attach_feature_noise(transition)
            torch.nn.init.normal_(network.noise.weight)
        made.append(network)
    return made


@pytest.fixture(name="X")
def rows():
    return torch.randn(N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("columns", [None, np.array([0, 1, 3])], ids=["dense", "sparse"])
@pytest.mark.parametrize("sizes", [(), (5,), (5, 6), (4, 5, 6)], ids=str)
def test_clean_probabilities_are_the_geometric_mean(sizes, columns, X):
    if columns is not None and not sizes:
        pytest.skip("sparse data need a hidden layer")
    members = networks(sizes, None, columns=columns)
    mean = torch.stack([one(X)[0] for one in members]).mean(0).log_softmax(1)
    found = averaged(members)(X)
    assert_close(found[0], mean)
    assert found[1].shape == (N, 3 * sizes[-1] if sizes else D)


def test_the_matrix_is_the_mean_of_theirs(X):
    members = networks((5,), "s")
    mean = np.mean([one.noise.matrix() for one in members], axis=0)
    network = averaged(members)
    np.testing.assert_allclose(network.noise.matrix(), mean)
    assert network.noise_model == "s"
    assert network.noise.bias.requires_grad


def test_as_many_targets_are_kept():
    network = averaged(networks((5,), "s", n_targets=2))
    assert network.noise.targets.shape == (K, 2)
    np.testing.assert_allclose(network.noise.matrix().sum(axis=1), 1)


@pytest.mark.parametrize("sizes", [(), (5,), (5, 6)], ids=str)
def test_noise_that_depends_on_the_features_has_the_mean_of_the_logits(sizes, X):
    members = networks(sizes, "c")
    logs = [one.noise.transition(one(X)[1]).log() for one in members]
    network = averaged(members)
    found = network.noise.transition(network(X)[1])
    assert_close(found, torch.stack(logs).mean(0).softmax(2))


def test_members_stay_as_they_are_and_one_network_is_itself(X):
    members = networks((5,), "c")
    before = [one(X)[0].clone() for one in members]
    averaged(members)
    for one, expected in zip(members, before, strict=True):
        assert_close(one(X)[0], expected)
    alone = averaged(members[:1])
    assert_close(alone(X)[0], before[0])
    assert_close(alone.noise.transition(alone(X)[1]), members[0].noise.transition(members[0](X)[1]))


def test_the_result_is_a_default_network_of_the_same_dropout_and_input():
    members = networks((5, 6), None)
    members[0].hidden.reset_standardization(np.full(D, 2.0), np.full(D, 3.0))
    network = averaged(members)
    assert type(network.hidden) is MLP
    assert network.hidden.dropout == 0.5
    assert_close(network.hidden.standardization.mean, torch.full((D,), 2.0, dtype=torch.float64))
