"""The passes of the default network that are written down, against autograd."""

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from test_objective import LAYERS, H, K, N, batch, layer
from torch import nn
from torch.testing import assert_close

from sknoisy import NoisyLabelClassifier, _backprop
from sknoisy._backprop import DenseNetwork, is_dense
from sknoisy._module import MLP, NoisyLabelNetwork
from sknoisy._objective import Objective


def network(sizes=(6, H), dtype=torch.float64, dropout=0.0, seed=0):
    """Return a network of random weights on three features."""
    torch.manual_seed(seed)
    n_hidden = sizes[-1] if sizes else 3
    return NoisyLabelNetwork(MLP(3, sizes, dropout), n_hidden, K).to(dtype)


def gradients(made, noise):
    return [p.grad for part in (made, noise) if part is not None for p in part.parameters()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", [*LAYERS, "soft targets"])
@pytest.mark.parametrize("sizes", [(H,), (6, H), (7, 6, H)], ids=str)
def test_loss_and_gradients_are_those_of_autograd(sizes, name, weighted, dtype):
    _, _, target, weight = batch(dtype)
    X = torch.randn(N, 3, dtype=dtype, generator=torch.Generator().manual_seed(2))
    extras = {"sample_weight": weight} if weighted else {}
    if name == "soft targets":
        extras["posterior"] = torch.softmax(batch(dtype)[0].flip(1), 1)
    objective, found, losses = Objective(transition_prior=0.7), [], []
    for by_hand in (False, True):
        made, noise = network(sizes, dtype), layer({"soft targets": "s"}.get(name, name), dtype)
        if by_hand:
            with torch.no_grad():
                dense = DenseNetwork(made)
                log_proba, hidden = dense.forward(X)
                loss, *more = objective.derivatives(noise, log_proba, hidden, target, **extras)
                dense.backward(log_proba, *more)
        else:
            loss = objective.loss(noise, *made(X), target, **extras)
            loss.backward()
        losses.append(loss.detach())
        found.append(gradients(made, noise))
    assert_close(*losses)
    for expected, grad in zip(*found, strict=True):
        assert (expected is None) == (grad is None)
        if grad is not None:
            assert_close(grad, expected)


def test_a_network_without_hidden_layers_is_trained_as_well():
    made, target = network(()), batch()[2]
    X = torch.randn(N, 3, dtype=torch.float64)
    Objective().loss(None, *made(X), target).backward()
    expected = [p.grad for p in made.parameters()]
    dense = DenseNetwork(made)
    with torch.no_grad():
        log_proba, hidden = dense.forward(X)
        _, *more = Objective().derivatives(None, log_proba, hidden, target)
        dense.backward(log_proba, *more)
    for grad, parameter in zip(expected, made.parameters(), strict=True):
        assert_close(parameter.grad, grad)


@pytest.mark.parametrize("name", ["s", "c"])
def test_a_parameter_that_is_frozen_gets_no_gradient(name):
    noise = layer(name)
    noise.bias.requires_grad_(False)
    logits, hidden, target, _ = batch()
    with torch.no_grad():
        Objective().derivatives(noise, torch.log_softmax(logits, 1), hidden, target)
    assert noise.bias.grad is None


def test_a_fit_is_the_same_by_hand_and_by_autograd(monkeypatch):
    X, y = make_blobs(200, 4, centers=3, cluster_std=2.0, random_state=0)
    found = []
    for model in ("s", "c"):
        for by_hand in (True, False):
            monkeypatch.setattr(
                _backprop, "is_dense", is_dense if by_hand else lambda network: False
            )
            fitted = NoisyLabelClassifier(noise_model=model, max_epochs=8, random_state=0).fit(X, y)
            found.append(fitted.predict_proba(X))
    np.testing.assert_allclose(found[0], found[1], atol=1e-9)
    np.testing.assert_allclose(found[2], found[3], atol=1e-9)


def test_the_default_network_is_trained_by_hand():
    assert is_dense(network())
    assert is_dense(network(()))


def hook(*args):
    """Change nothing."""


class Wider(MLP):
    """Could do anything."""


@pytest.mark.parametrize(
    "change",
    [
        lambda made: setattr(made, "hidden", nn.Sequential(nn.Linear(3, H), nn.ReLU())),
        lambda made: setattr(made, "hidden", Wider(3, (H,))),
        lambda made: made.hidden.append(nn.Tanh()),
        lambda made: made.head.weight.requires_grad_(False),
        lambda made: made.head.weight.register_hook(hook),
        lambda made: made.hidden[1].bias.register_post_accumulate_grad_hook(hook),
        lambda made: made.hidden[2].register_forward_hook(hook),
        lambda made: made.register_forward_pre_hook(hook),
        lambda made: made.head.register_full_backward_hook(hook),
        lambda made: nn.utils.parametrizations.weight_norm(made.head),
    ],
    ids=[
        "another module", "a subclass", "another layer", "frozen", "hook of a weight",
        "hook of a gradient", "forward hook", "forward hook before", "backward hook",
        "parametrised",
    ],
)  # fmt: skip
def test_who_changes_or_watches_a_network_gets_autograd(change):
    made = network()
    change(made)
    assert not is_dense(made)


def test_dropout_and_mixed_precision_are_left_to_autograd():
    assert not is_dense(network(dropout=0.5))
    with torch.autocast("cpu"):
        assert not is_dense(network())


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_a_compiled_network_is_left_to_its_compiler():
    assert not is_dense(torch.compile(network()))


def test_global_hooks_are_heard():
    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        assert not is_dense(network())
    finally:
        handle.remove()


def test_a_noise_layer_with_a_hook_is_left_to_autograd():
    noise, objective = layer("s"), Objective()
    plain = copy.deepcopy(noise)
    noise.bias.register_hook(hook)
    assert objective.most_rows(noise) == 0
    assert objective.most_rows(plain) > N
