"""The loss of a batch: the gradient that is written down, chunks, weights, and sparse layers."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from sknoisy._model import equations as F
from sknoisy._model import feature_noise
from sknoisy._model.feature_noise import FeatureTransition, SparseFeatureTransition
from sknoisy._model.loss import Objective
from sknoisy._model.noise_layers import ClassTransition, NoiseLayer

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


def gradients(name, how, objective, weighted, dtype=torch.float64, noise=None):
    """Return the loss and the gradients of the logits, the features and the noise layer."""
    logits, hidden, target, weight = batch(dtype)
    logits.requires_grad_(), hidden.requires_grad_()
    noise = layer(name, dtype) if noise is None else noise
    extras = {"sample_weight": weight} if weighted else {}
    clean = torch.log_softmax(logits, 1)
    learning = [] if noise is None else noise.learning()
    if how == "autograd":
        loss = objective.loss(noise, clean, hidden, target, **extras)
        loss.backward()
        by_noise = [parameter.grad for parameter in learning]
    else:
        with torch.no_grad():
            loss, by_clean, by_hidden, by_noise = objective.derivatives(
                noise, clean, hidden, target, **extras
            )
        torch.autograd.backward([clean], [by_clean])
        hidden.grad = by_hidden
    assert len(by_noise) == len(learning)
    return [loss.detach(), logits.grad, hidden.grad, *by_noise]


def assert_the_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert_close(one, other)


class ByAutograd(ClassTransition):
    """A noise layer that writes no derivatives down."""

    linearize = NoiseLayer.linearize


class FeaturesByAutograd(FeatureTransition):
    """A noise layer that writes no derivatives down."""

    linearize = NoiseLayer.linearize


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("prior", [0.0, 0.7])
@pytest.mark.parametrize("name", LAYERS)
def test_the_gradient_that_is_written_down_is_that_of_autograd(name, prior, weighted, dtype):
    objective = Objective(transition_prior=prior)
    found = [gradients(name, how, objective, weighted, dtype) for how in ("by hand", "autograd")]
    assert_the_same(*found)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("prior", [0.0, 0.7])
@pytest.mark.parametrize("name", ["s", "c", "fixed"])
def test_a_layer_that_writes_no_derivatives_down_gets_them_from_autograd(name, prior, weighted):
    noise = layer(name)
    plain = copy.deepcopy(noise)
    plain.__class__ = FeaturesByAutograd if name == "c" else ByAutograd
    objective = Objective(transition_prior=prior)
    found = [gradients(name, "by hand", objective, weighted, noise=one) for one in (noise, plain)]
    assert_the_same(*found)


@pytest.mark.parametrize(
    "objective",
    [Objective(), Objective(transition_prior=0.7), Objective(0.3, volume_penalty=0.2)],
    ids=["likelihood", "prior", "volume"],
)
@pytest.mark.parametrize("how", ["by hand", "autograd"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["c", "sparse c"])
def test_parts_give_the_loss_and_the_gradient_of_the_whole(
    name, weighted, how, objective, monkeypatch
):
    whole = gradients(name, how, objective, weighted)
    logits, hidden, _, _ = batch()
    noise, clean = layer(name), torch.log_softmax(logits, 1)
    proba = [noise.noisy_log_proba(clean, hidden), noise.joint_counts(clean.exp(), hidden)]
    monkeypatch.setattr(feature_noise, "_ELEMENTS_AT_ONCE", 3 * noise.bias.numel())
    sizes = []
    original = F.feature_log_transition
    monkeypatch.setattr(
        F, "feature_log_transition", lambda h, *rest: sizes.append(len(h)) or original(h, *rest)
    )
    assert_the_same(gradients(name, how, objective, weighted), whole)
    parts = [noise.noisy_log_proba(clean, hidden), noise.joint_counts(clean.exp(), hidden)]
    assert_the_same(parts, proba)
    assert len(sizes) > 2
    assert max(sizes) == 3


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


@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_through_a_fixed_matrix_is_one_of_the_m_step_of_em(weighted):
    logits, hidden, target, weight = batch()
    weight = weight if weighted else None
    noise = layer("fixed")
    clean = torch.log_softmax(logits, 1).requires_grad_()
    Objective(1.0).loss(noise, clean, hidden, target, sample_weight=weight).backward()
    posterior = torch.softmax(clean.detach() + noise.label_log_likelihood(target), 1)
    expected = (posterior * clean).sum(1) * (1.0 if weight is None else weight)
    assert_close(clean.grad, torch.autograd.grad(-expected.mean(), clean)[0])


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
    matrices = [noise.transition(hidden) for noise in (dense, sparse)]
    assert_close(matrices[0], matrices[1])
    proba = [noise.noisy_log_proba(clean, hidden) for noise in (dense, sparse)]
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
    matrix = noise.transition(batch()[1]).reshape(-1, K, K)[0]
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
    assert_close(other.transition(hidden), noise.transition(hidden))
