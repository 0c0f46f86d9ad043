"""The loss of a batch: the gradient that is written down, chunks, weights, and sparse layers."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from sknoisy._model import loss as loss_module
from sknoisy._model.loss import Objective
from sknoisy._model.noise_layers import ClassTransition, FeatureTransition, SparseFeatureTransition

N, K, H = 12, 5, 4
LAYERS = {
    "none": lambda T: None,
    "s": ClassTransition,
    "fixed": lambda T: ClassTransition(T, learnable=False),
    "sparse s": lambda T: ClassTransition(T, n_targets=2),
    "c": lambda T: FeatureTransition(T, H),
    "sparse c": lambda T: SparseFeatureTransition(T, H, 2),
}


def batch(dtype=torch.float64):
    """Return logits, hidden features, labels and weights of a few rows."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(N, K, generator=generator, dtype=dtype) * 3
    hidden = torch.randn(N, H, generator=generator, dtype=dtype)
    target = torch.randint(K, (N,), generator=generator)
    weight = torch.rand(N, generator=generator, dtype=dtype)
    return logits, hidden, target, weight


def layer(name, dtype=torch.float64):
    """Return a noise layer that is away from its start."""
    generator = torch.Generator().manual_seed(1)
    transition = torch.softmax(
        torch.randn(K, K, generator=generator, dtype=dtype) + 2 * torch.eye(K), 1
    )
    noise = LAYERS[name](transition.to(dtype))
    if noise is not None:
        for parameter in noise.parameters():
            nn.init.normal_(parameter, generator=generator)
    return noise


def gradients(name, how, objective, weighted, dtype=torch.float64):
    """Return the loss and the gradients of the logits, the features and the noise layer."""
    logits, hidden, target, weight = batch(dtype)
    logits.requires_grad_(), hidden.requires_grad_()
    noise = layer(name, dtype)
    extras = {"sample_weight": weight} if weighted else {}
    clean = torch.log_softmax(logits, 1)
    loss = getattr(objective, how)(noise, clean, hidden, target, **extras)
    if how == "loss":
        loss.backward()
    leaves = [logits, hidden, *([] if noise is None else noise.parameters())]
    return [loss.detach(), *[leaf.grad for leaf in leaves if leaf.grad is not None]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "objective",
    [Objective(), Objective(transition_prior=0.7), Objective(0.3, volume_penalty=0.2)],
    ids=["likelihood", "prior", "volume"],
)
@pytest.mark.parametrize("name", LAYERS)
def test_the_gradient_that_is_written_down_is_that_of_autograd(name, objective, weighted, dtype):
    by_hand = gradients(name, "backward", objective, weighted, dtype)
    by_autograd = gradients(name, "loss", objective, weighted, dtype)
    assert len(by_hand) == len(by_autograd)
    for found, expected in zip(by_hand, by_autograd, strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize("how", ["loss", "backward"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["c", "sparse c"])
def test_chunks_give_the_loss_and_the_gradient_of_the_whole(name, weighted, how, monkeypatch):
    objective = Objective(transition_prior=0.7, volume_penalty=0.2)
    whole = gradients(name, how, objective, weighted)
    monkeypatch.setattr(loss_module, "_ELEMENTS_AT_ONCE", 3 * K * K)
    sizes = []
    original = Objective._terms
    monkeypatch.setattr(
        Objective,
        "_terms",
        lambda self, noise, *rows: sizes.append(len(rows[0])) or original(self, noise, *rows),
    )
    for found, expected in zip(gradients(name, how, objective, weighted), whole, strict=True):
        assert_close(found, expected)
    assert len(sizes) > 2
    assert max(sizes) < N


@pytest.mark.parametrize("name", ["s", "c", "sparse s", "sparse c"])
def test_weight_two_is_the_row_twice(name):
    logits, hidden, target, _ = batch()
    noise, clean = layer(name), torch.log_softmax(logits, 1)
    objective = Objective()
    weight = torch.tensor([2.0, *[1.0] * (N - 1)], dtype=torch.float64)
    rows = torch.tensor([0, *range(N)])
    weighted = objective.loss(noise, clean, hidden, target, sample_weight=weight) * N
    repeated = objective.loss(noise, clean[rows], hidden[rows], target[rows]) * (N + 1)
    assert_close(weighted, repeated)


def test_soft_targets_leave_the_noise_layer_alone():
    logits, hidden, target, _ = batch()
    noise, clean = layer("s"), torch.log_softmax(logits, 1).requires_grad_()
    posterior = torch.softmax(logits.flip(1), 1)
    loss = Objective(1.0).backward(noise, clean, hidden, target, posterior=posterior)
    assert_close(loss, -(posterior * clean).sum(1).mean().detach())
    assert clean.grad is not None
    assert noise.bias.grad is None


@pytest.mark.parametrize("name", ["s", "c"])
def test_a_sparse_layer_that_keeps_every_class_is_the_dense_one(name):
    dense = layer(name)
    logits, hidden, target, _ = batch()
    clean = torch.log_softmax(logits, 1)
    transition = torch.softmax(dense.bias.detach(), 1)
    if name == "s":
        dense, sparse = ClassTransition(transition), ClassTransition(transition, n_targets=K)
    else:
        dense = FeatureTransition(transition, H)
        sparse = SparseFeatureTransition(transition, H, K)
    objective = Objective(transition_prior=0.5)
    losses = [objective.loss(noise, clean, hidden, target) for noise in (dense, sparse)]
    assert_close(losses[0], losses[1])
    matrices = [noise.dense(noise(hidden)) for noise in (dense, sparse)]
    assert_close(matrices[0], matrices[1])
    proba = [noise.noisy_log_proba(clean, noise(hidden)) for noise in (dense, sparse)]
    assert_close(proba[0], proba[1])


@pytest.mark.parametrize("n_targets", range(1, K + 1))
@pytest.mark.parametrize("model", ["s", "c"])
def test_a_sparse_layer_keeps_the_likeliest_classes_and_the_diagonal(model, n_targets):
    transition = torch.full((K, K), 0.01, dtype=torch.float64)
    order = torch.arange(K)
    transition[order, order] = 0.1  # not the largest, and kept all the same
    transition[order, (order + 1) % K] = 0.6
    transition[order, (order + 2) % K] = 0.2
    transition /= transition.sum(1, keepdim=True)
    noise = (
        ClassTransition(transition, n_targets=n_targets)
        if model == "s"
        else SparseFeatureTransition(transition, H, n_targets)
    )
    matrix = noise.dense(noise(batch()[1])).reshape(-1, K, K)[0]
    assert_close(matrix.sum(1), torch.ones(K, dtype=torch.float64))
    assert ((matrix > 1e-6).sum(1) == n_targets).all()
    assert (matrix[order, order] > 0).all()
    for kept, shift in enumerate((1, 2), start=2):
        assert bool((matrix[order, (order + shift) % K] > 0.01).all()) == (n_targets >= kept)


@pytest.mark.parametrize("name", ["sparse s", "sparse c"])
def test_a_sparse_layer_survives_a_copy_of_its_state(name):
    noise = layer(name)
    other = copy.deepcopy(noise)
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    other.load_state_dict(noise.state_dict())
    hidden = batch()[1]
    assert_close(other(hidden), noise(hidden))
