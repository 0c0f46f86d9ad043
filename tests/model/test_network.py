"""The network is built around any hidden layers, and the noise layer comes off."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from sknoisy._model.feature_noise import FeatureTransition
from sknoisy._model.network import MLP, NoisyLabelModule, Standardization, build_network
from sknoisy._model.noise_layers import ClassTransition


class Hidden(nn.Sequential):
    """One layer of given width."""

    def __init__(self, width, n_features=6):
        super().__init__(nn.Linear(n_features, width), nn.ReLU())


class Constant(nn.Module):
    """Returns what it was given, whatever the input."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, X):
        return self.output


def width_of_five():
    return Hidden(5)


@pytest.fixture
def sample():
    return torch.randn(2, 6, generator=torch.Generator().manual_seed(0))


def build(module, sample, *, hidden_layer_sizes=(8,), dropout=0.0, **module_params):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network(
            module,
            module_params,
            sample,
            3,
            hidden_layer_sizes=hidden_layer_sizes,
            dropout=dropout,
        )


def test_mlp_has_the_layers_it_was_asked_for():
    mlp = MLP(6, (5, 4), dropout=0.5)
    layers = [Standardization] + 2 * [nn.Linear, nn.ReLU, nn.Dropout]
    assert [type(layer) for layer in mlp] == layers
    assert [tuple(p.shape) for p in mlp.parameters() if p.ndim == 2] == [(5, 6), (4, 5)]
    assert not any(isinstance(layer, nn.Dropout) for layer in MLP(6, (5,)))


def test_mlp_without_hidden_layers_is_the_input():
    X = torch.ones(3, 2, 2)
    assert_close(MLP(4, ())(X), X.flatten(1))


def test_standardization_centres_scales_and_flattens():
    X = torch.arange(12.0).reshape(3, 2, 2)
    layer = Standardization(4)
    assert_close(layer(X), X.flatten(1))
    before = X.clone()
    layer.reset(np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0, 0.5]))
    expected = (X.flatten(1) - torch.tensor([0.0, 1.0, 2.0, 3.0])) / torch.tensor([1, 2, 4, 0.5])
    assert_close(layer(X), expected)
    assert_close(X, before)  # the batch is left as it is
    assert not list(layer.parameters())  # it is not trained
    assert set(layer.state_dict()) == {"mean", "scale"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("hidden_layer_sizes", [(8,), (8, 5)])
def test_restandardize_keeps_the_function(dtype, hidden_layer_sizes):
    generator = torch.Generator().manual_seed(0)
    X = (3.0 * torch.randn(50, 4, generator=generator, dtype=dtype) + 5.0).to(dtype)
    mlp = MLP(4, hidden_layer_sizes).to(dtype)
    mlp.standardization.reset(np.full(4, 2.0), np.array([1.0, 2.0, 3.0, 4.0]))
    before = mlp(X).detach()
    weight = mlp[1].weight.detach().clone()
    for mean, scale in (
        (np.array([5.0, 4.0, -3.0, 0.0]), np.array([3.0, 0.1, 2.0, 1.0])),
        (np.zeros(4), np.full(4, 10.0)),
    ):
        mlp.restandardize(mean, scale)
        assert_close(mlp.standardization.mean, torch.as_tensor(mean, dtype=dtype))
        assert_close(mlp.standardization.scale, torch.as_tensor(scale, dtype=dtype))
        assert_close(mlp(X).detach(), before, rtol=1e-4, atol=1e-4)
    assert (mlp[1].weight - weight).abs().max() > 0.1


def test_a_column_that_was_constant_keeps_its_weights_when_it_varies():
    mlp = MLP(3, (8,)).double()
    mlp.standardization.reset(np.array([1.0, 5.0, 0.0]), np.array([2.0, np.inf, np.inf]))
    X = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    X[:, 1], X[:, 2] = 5.0, 0.0
    before, weight = mlp(X).detach(), mlp[1].weight.detach().clone()
    mlp.restandardize(np.array([1.5, 6.0, 0.0]), np.array([3.0, 1e4, np.inf]))
    assert_close(mlp(X).detach(), before)
    assert_close(mlp[1].weight[:, 1:], weight[:, 1:])
    X[:, 2] = 1e6  # what never varied is ignored
    assert_close(mlp(X).detach(), before)


def test_a_column_that_becomes_constant_keeps_its_weights():
    mlp = MLP(2, (8,))
    mlp.standardization.reset(np.zeros(2), np.array([2.0, 1.0]))
    weight = mlp[1].weight.detach().clone()
    mlp.restandardize(np.zeros(2), np.array([np.inf, 3.0]))
    assert_close(mlp[1].weight, weight * torch.tensor([1.0, 3.0]))


def test_a_column_of_sparse_rows_keeps_its_weights_when_it_varies_for_the_first_time():
    mlp = MLP(4, (8,), columns=np.array([0, 2, 3]))
    mlp.reset_standardization(np.zeros(4), np.array([1.0, 1.0, np.inf, 4.0]))
    weight = mlp.sparse_input.weight.detach().clone()
    mlp.restandardize(np.zeros(4), np.array([2.0, 1.0, 3.0, 2.0]))
    assert_close(mlp.sparse_input.weight, weight * torch.tensor([[2.0], [1.0], [0.5]]))


def test_the_input_is_restandardised_without_hidden_layers_too():
    mlp = MLP(2, ())
    mlp.restandardize(np.array([1.0, 2.0]), np.array([2.0, 4.0]))
    assert_close(mlp(torch.tensor([[3.0, 2.0]])), torch.tensor([[1.0, 0.0]]))


def test_large_features_are_scaled_to_one_before_training_and_small_ones_are_left():
    X = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    for factor in (1.0, 5.0, 1e3, 1e6):
        network = NoisyLabelModule(nn.Identity(), 6, 3)
        network.rescale_features(factor * X)
        magnitude = network.features(factor * X).square().mean().sqrt()
        if factor <= 5.0:
            assert network.hidden_scale == 1.0
        else:
            assert network.hidden_scale == pytest.approx(factor, rel=0.2)
            assert magnitude == pytest.approx(1.0, rel=1e-5)
    assert_close(network(factor * X)[1], network.features(factor * X))
    expected = torch.log_softmax(network.head(network.features(factor * X)), dim=1)
    assert_close(network.clean_log_proba(factor * X), expected)


def test_features_that_are_not_finite_are_not_scaled():
    network = NoisyLabelModule(nn.Identity(), 2, 3)
    network.rescale_features(torch.tensor([[1e3, torch.inf]]))
    assert network.hidden_scale == 1.0


@pytest.mark.parametrize(
    ("module", "params", "n_hidden"),
    [
        (None, {}, 8),
        (Hidden, {"width": 7}, 7),
        (width_of_five, {}, 5),
        (Hidden(4), {}, 4),
        (nn.LazyLinear, {"out_features": 9}, 9),
        (nn.Sequential(nn.LazyLinear(3), nn.ReLU()), {}, 3),
        (nn.Identity(), {}, 6),
    ],
    ids=["None", "class", "factory", "instance", "lazy class", "lazy instance", "identity"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_network_is_built_around_any_hidden_layers(module, params, n_hidden, sample, dtype):
    network = build(module, sample.to(dtype), **params)
    log_proba, hidden = network(sample.to(dtype))
    assert network.head.in_features == n_hidden
    assert hidden.shape == (2, n_hidden)
    assert log_proba.dtype == dtype
    assert_close(log_proba.exp().sum(dim=1), torch.ones(2, dtype=dtype))
    assert not any(isinstance(p, nn.UninitializedParameter) for p in network.parameters())


def test_hidden_layer_sizes_and_dropout_describe_the_default_network(sample):
    network = build(None, sample, hidden_layer_sizes=(5, 4), dropout=0.25)
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.25, 0.25]
    assert network.head.in_features == 4


def test_default_network_flattens_images():
    assert build(None, torch.zeros(2, 1, 5, 5)).hidden[1].in_features == 25


def test_an_instance_is_copied_and_left_as_it_was(sample):
    hidden = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)).train()
    before = copy.deepcopy(hidden.state_dict())
    network = build(hidden, sample.double()).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    network(sample.double())[0][:, 0].sum().backward()
    optimizer.step()
    assert hidden.training
    assert all(torch.equal(value, before[name]) for name, value in hidden.state_dict().items())
    assert not torch.equal(network.hidden[0].weight.float(), hidden[0].weight)


def test_the_trial_run_leaves_running_statistics_and_generators_alone(sample):
    hidden = nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(0.5))
    state = torch.get_rng_state()
    network = build(hidden, sample + 100)
    assert torch.equal(torch.get_rng_state(), state)
    assert_close(network.hidden[0].running_mean, torch.zeros(6))


def test_same_seed_same_network(sample):
    first, second = build(None, sample), build(None, sample)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


@pytest.mark.parametrize(
    ("module", "params", "message"),
    [
        (None, {"width": 3}, r"`module` is None: module__width\. The default network is set by"),
        (Hidden(4), {"width": 3}, "`module` is an instance.*got module__width. Pass the class"),
        (
            Hidden,
            {},
            r"`module` Hidden could not be built from \(\).*width.*"
            r"It takes: module__width, module__n_features\.",
        ),
        (
            Hidden,
            {"width": 3, "depth": 2},
            r"built from \(module__depth, module__width\).*depth.*It takes: module__width",
        ),
        (width_of_five, {"width": 3}, r"`module` width_of_five could not .* no parameters\."),
        (dict, {}, "must be an nn.Module, a class of one, or .* calling it gave dict"),
    ],
    ids=["None", "instance", "missing", "unknown", "factory", "no module"],
)
def test_parameters_that_do_not_fit_the_module_are_named(module, params, message, sample):
    with pytest.raises(ValueError, match=message):
        build(module, sample, **params)


@pytest.mark.parametrize(
    ("output", "came"),
    [
        (torch.zeros(2), r"torch.float32 of \(2,\)"),
        (torch.zeros(2, 3, 4), r"torch.float32 of \(2, 3, 4\)"),
        (torch.zeros(3, 4), r"torch.float32 of \(3, 4\)"),
        (torch.zeros(2, 4, dtype=torch.long), r"torch.int64 of \(2, 4\)"),
        ((torch.zeros(2, 4), torch.zeros(2)), "tuple"),
        (None, "NoneType"),
    ],
    ids=["1d", "3d", "rows", "integers", "tuple", "None"],
)
def test_a_module_that_returns_no_hidden_layer_is_refused(output, came, sample):
    message = (
        r"`module` must map a batch of 2 rows to a floating point tensor of shape \(2, n_hidden\)"
        f"; it returned {came}"
    )
    with pytest.raises(ValueError, match=message):
        build(Constant(output), sample)


def test_a_module_for_other_data_is_refused_with_its_cause(sample):
    message = r"`module` failed on a batch of shape \(2, 6\) and dtype torch.float32: "
    with pytest.raises(ValueError, match=message) as caught:
        build(Hidden(4, n_features=5), sample)
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("model", ["s", "c"])
def test_the_noise_layer_leaves_clean_probabilities_alone(model, sample):
    network = build(None, sample)
    clean, _ = network(sample)
    transition = torch.full((3, 3), 0.1) + 0.7 * torch.eye(3)
    network.noise = (
        ClassTransition(transition) if model == "s" else FeatureTransition(transition, 8)
    )
    noisy_clean, hidden = network(sample)
    found = network.noise.transition(hidden)
    assert_close(noisy_clean, clean)
    assert_close(network.clean_log_proba(sample), clean)
    assert_close(found, transition.expand(found.shape))
    assert found.shape == ((3, 3) if model == "s" else (2, 3, 3))


def test_the_noise_layer_goes_with_the_state_of_the_network(sample):
    network = NoisyLabelModule(Hidden(4), 4, 3)
    assert not any(name.startswith("noise") for name in network.state_dict())
    network.noise = ClassTransition(torch.full((3, 3), 1 / 3))
    assert "noise.bias" in network.state_dict()
    network.noise = None
    assert not any(name.startswith("noise") for name in network.state_dict())
