"""The passes of the default network that are written down, against autograd."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from test_loss import LAYERS, H, K, N, batch, layer
from torch import nn
from torch.testing import assert_close

from sknoisy import NoisyLabelClassifier
from sknoisy._model import closed_form
from sknoisy._model.closed_form import backward_pass, is_dense, supports_closed_form
from sknoisy._model.loss import Objective
from sknoisy._model.network import MLP, NoisyLabelModule


def network(sizes=(6, H), dtype=torch.float64, dropout=0.0, seed=0):
    """Return a network of random weights on three features."""
    torch.manual_seed(seed)
    n_hidden = sizes[-1] if sizes else 3
    return NoisyLabelModule(MLP(3, sizes, dropout), n_hidden, K).to(dtype)


def step(made, noise, objective, X, target, extras, how):
    """Return the loss and all gradients of a step."""
    if how == "autograd":
        loss = objective.loss(noise, *made(X), target, **extras)
        loss.backward()
    else:
        made.noise = noise
        loss = backward_pass(made, objective, noise)(X, target=target, **extras)
    made.noise = noise
    return loss.detach(), [weight.grad for weight in made.parameters()]


def assert_the_same(one, other):
    assert_close(one[0], other[0])
    for expected, found in zip(one[1], other[1], strict=True):
        assert (expected is None) == (found is None)
        if expected is not None:
            assert_close(found, expected)


@pytest.fixture(params=["dense", "hidden layers by autograd"])
def how(request, monkeypatch):
    if request.param != "dense":
        monkeypatch.setattr(closed_form, "is_dense", lambda hidden: False)
    return request.param


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("sizes", [(H,), (6, H), (7, 6, H)], ids=str)
def test_loss_and_gradients_are_those_of_autograd(sizes, name, weighted, dtype, how):
    _, _, target, weight = batch(dtype)
    X = torch.randn(N, 3, dtype=dtype, generator=torch.Generator().manual_seed(2))
    extras = {"sample_weight": weight} if weighted else {}
    objective, found = Objective(transition_prior=0.7), []
    for way in ("autograd", how):
        made, noise = network(sizes, dtype), layer(name, dtype)
        found.append(step(made, noise, objective, X, target, extras, way))
    assert_the_same(*found)


def test_a_network_without_hidden_layers_is_trained_as_well(how):
    X, target = torch.randn(N, 3, dtype=torch.float64), batch()[2]
    assert_the_same(
        *(step(network(()), None, Objective(), X, target, {}, way) for way in ("autograd", how))
    )


def test_the_data_stay_as_they_are(how):
    X, target = torch.randn(N, 3, dtype=torch.float64), batch()[2]
    before = X.clone()
    for sizes in ((H,), ()):
        step(network(sizes), None, Objective(), X, target, {}, how)
    assert torch.equal(X, before)


@pytest.mark.parametrize("which", ["hidden.1.weight", "hidden.1.bias", "head.weight", "head.bias"])
def test_frozen_weights_get_no_gradient_and_the_others_theirs(which):
    X, target = torch.randn(N, 3, dtype=torch.float64), batch()[2]
    found = []
    for way in ("autograd", "by hand"):
        made = network()
        made.get_parameter(which).requires_grad_(False)
        found.append(step(made, layer("c"), Objective(), X, target, {}, way))
        assert made.get_parameter(which).grad is None
    assert_the_same(*found)


@pytest.mark.parametrize("name", ["s", "c", "sparse c"])
@pytest.mark.parametrize("which", ["bias", "weight"])
def test_a_parameter_of_the_noise_layer_that_is_frozen_gets_no_gradient(name, which):
    X, target = torch.randn(N, 3, dtype=torch.float64), batch()[2]
    found = []
    for way in ("autograd", "by hand"):
        noise = layer(name)
        parameters = dict(noise.named_parameters())
        if which not in parameters:
            pytest.skip("the s-model has no weights")
        parameters[which].requires_grad_(False)
        found.append(step(network(), noise, Objective(0.5), X, target, {}, way))
        assert parameters[which].grad is None
    assert_the_same(*found)


def test_a_fit_is_the_same_by_hand_and_by_autograd(monkeypatch):
    X, y = make_blobs(200, 4, centers=3, cluster_std=2.0, random_state=0)
    for model in ("s", "c"):
        found = []
        for left_out in ((), ("is_dense",), ("is_dense", "supports_closed_form")):
            for name in left_out:
                monkeypatch.setattr(closed_form, name, lambda part: False)
            params = {"max_epochs": 8, "select_noise_model": False, "random_state": 0}
            fitted = NoisyLabelClassifier(noise_model=model, **params).fit(X, y)
            found.append(fitted.predict_proba(X))
            monkeypatch.undo()
        np.testing.assert_allclose(found[1], found[0], atol=1e-9)
        np.testing.assert_allclose(found[2], found[0], atol=1e-9)


def test_the_default_network_is_trained_by_hand():
    for made in (network(), network(())):
        assert supports_closed_form(made)
        assert is_dense(made.hidden)


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
        lambda made: made.hidden[1].weight.requires_grad_(False),
        lambda made: made.hidden[1].bias.register_post_accumulate_grad_hook(hook),
        lambda made: made.hidden[2].register_forward_hook(hook),
        lambda made: nn.utils.parametrizations.weight_norm(made.hidden[1]),
    ],
    ids=["another module", "a subclass", "another layer", "frozen", "hook of a weight", "hook",
         "parametrised"],
)  # fmt: skip
def test_who_changes_or_watches_hidden_layers_gets_autograd_for_them(change):
    made = network()
    change(made)
    assert not is_dense(made.hidden)
    assert supports_closed_form(made)


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made.head.weight.register_hook(hook),
        lambda made: made.register_forward_pre_hook(hook),
        lambda made: made.head.register_full_backward_hook(hook),
        lambda made: nn.utils.parametrizations.weight_norm(made.head),
    ],
    ids=["hook of a weight", "forward hook", "backward hook", "parametrised"],
)
def test_who_changes_or_watches_the_network_gets_autograd(change):
    made = network()
    change(made)
    assert not supports_closed_form(made)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sizes", [(H,), (6, H)], ids=str)
def test_dropout_has_the_gradients_of_autograd(sizes, training):
    _, _, target, _ = batch(torch.float64)
    X = torch.randn(N, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = []
    for way in ("autograd", "dense"):
        made = network(sizes, dropout=0.4).train(training)
        assert is_dense(made.hidden)
        torch.manual_seed(5)  # of what is dropped
        found.append(step(made, layer("s", torch.float64), Objective(0.5), X, target, {}, way))
    assert_the_same(*found)


def test_mixed_precision_is_left_to_autograd():
    with torch.autocast("cpu"):
        assert not supports_closed_form(network())


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_a_compiled_network_is_left_to_its_compiler():
    assert not supports_closed_form(torch.compile(network()))


def test_global_hooks_are_heard():
    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        assert not supports_closed_form(network())
    finally:
        handle.remove()


@pytest.mark.parametrize("watch", ["register_hook", "register_post_accumulate_grad_hook"])
def test_a_noise_layer_with_a_hook_is_left_to_autograd(watch):
    made = network()
    made.noise = layer("s")
    assert supports_closed_form(made)
    getattr(made.noise.bias, watch)(hook)
    assert not supports_closed_form(made)


def test_the_volume_is_left_to_autograd():
    X, target = torch.randn(N, 3, dtype=torch.float64), batch()[2]
    objective = Objective(0.5, volume_penalty=0.3)
    assert_the_same(
        *(step(network(), layer("s"), objective, X, target, {}, way) for way in ("autograd", ""))
    )
