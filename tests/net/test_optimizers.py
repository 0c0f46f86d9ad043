"""Steps in one kernel where torch has one that is right, and plain steps everywhere else."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from skorch.callbacks import Callback, Unfreezer
from torch import nn

from sknoisy import NoisyLabelClassifier
from sknoisy._net.optimizers import fused_by_default, leave_fused_step

TOKENS = np.random.RandomState(0).randint(0, 10, (300, 4))
LABELS = (TOKENS[:, 0] > 4).astype(int)
KINDS = {
    "Adam": (torch.optim.Adam, {}),
    "AdamW": (torch.optim.AdamW, {"amsgrad": True}),
    "SGD": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "Adagrad": (torch.optim.Adagrad, {}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


class Bag(nn.Module):
    def __init__(self, sparse=True):
        super().__init__()
        self.table = nn.EmbeddingBag(10, 8, sparse=sparse)

    def forward(self, X):
        return self.table(X.long())


class Tokens(nn.Module):
    """Has dense layers behind a table with sparse gradients."""

    def __init__(self, sparse=True):
        super().__init__()
        self.table = nn.Embedding(10, 8, sparse=sparse)
        self.layer = nn.Linear(32, 8)

    def forward(self, X):
        return self.layer(self.table(X.long()).flatten(1)).relu()


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 8, dtype=torch.cfloat))

    def forward(self, X):
        return (X.to(torch.cfloat) @ self.weight).abs()


class Slice(nn.Module):
    """Holds a part of a larger table, which has gaps in memory."""

    def __init__(self, gaps=True):
        super().__init__()
        table = torch.randn(4, 20)[:, ::2]
        self.weight = nn.Parameter(table if gaps else table.contiguous())

    def forward(self, X):
        return torch.relu(X @ self.weight / 5)


class Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(10, 33, dtype=torch.float16))
        self.layer = nn.Linear(33, 8)

    def forward(self, X):
        return self.layer(self.table[X[:, 0].long()].to(X.dtype)).relu()


class Late(nn.Module):
    """Has a branch that is taken from the second pass on."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(4, 8)
        self.n_passes = 0

    def forward(self, X):
        self.n_passes += self.training
        return (self.first(X) + (self.second(X) if self.n_passes > 1 else 0)).relu()


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(4, 8), nn.ReLU())

    def forward(self, X):
        return self.layer(X)


class GradientHook(nn.Module):
    """Replaces a gradient by one that lies in memory in another way."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 8)
        self.layer.weight.register_post_accumulate_grad_hook(turned)

    def forward(self, X):
        return self.layer(X).relu()


def turned(weight):
    weight.grad = weight.grad.T.contiguous().T


class TurnsGradients(Callback):
    def on_grad_computed(self, net, named_parameters, **kwargs):
        for _, weight in named_parameters:
            if weight.grad is not None and weight.grad.ndim == 2:
                turned(weight)


def sparse(values):
    at = values.nonzero().T
    return torch.sparse_coo_tensor(at, values[tuple(at)], values.shape, check_invariants=True)


def fit(module, kind, **params):
    optimizer, routed = KINDS[kind]
    params |= {f"optimizer__{name}": value for name, value in routed.items()}
    common = {"max_epochs": 4, "lr": 0.05, "random_state": 0, "select_noise_model": False}
    params = common | params
    classifier = NoisyLabelClassifier(module, optimizer=optimizer, **params)
    return classifier.fit(TOKENS.astype("float32"), LABELS)


def predictions(fitted):
    return fitted.predict_proba(TOKENS.astype("float32"))


@every_kind
@pytest.mark.parametrize("module", [Complex, Slice, Half, Late, Plain, GradientHook, None])
@pytest.mark.parametrize("heard", [False, True])
def test_the_default_step_learns_what_the_plain_step_learns(module, kind, heard):
    if module is Half and KINDS[kind][0] is not torch.optim.SGD:
        pytest.skip("the plain step divides by zero, where the fused one computes in float32")
    heard = {"callbacks": [TurnsGradients]} if heard else {}
    chosen = fit(module, kind, **heard)
    plain = fit(module, kind, optimizer__fused=False, **heard)
    assert_allclose(predictions(chosen), predictions(plain), rtol=0, atol=2e-3)


# From torch's own Adagrad, which makes sparse tensors.
@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize("kind", ["SGD", "Adagrad"])
@pytest.mark.parametrize("module", [Bag, Tokens])
@pytest.mark.parametrize("heard", [False, True])
@pytest.mark.parametrize("noise_model", ["s", "c", None])
def test_sparse_gradients_learn_what_dense_ones_learn(module, kind, heard, noise_model):
    params = {"callbacks": [("heard", OnBatches)] if heard else [], "noise_model": noise_model}
    sparse = fit(module, kind, **params)
    dense = fit(module, kind, module__sparse=False, optimizer__fused=False, **params)
    assert_allclose(predictions(sparse), predictions(dense), rtol=0, atol=2e-3)


class OnBatches(Callback):
    def on_batch_end(self, net, **kwargs):
        pass


def test_sparse_gradients_learn_in_a_stream_and_with_held_out_rows():
    stream = NoisyLabelClassifier(Bag, optimizer=torch.optim.SGD, lr=0.5, random_state=0)
    for _ in range(30):
        stream.partial_fit(TOKENS, LABELS, classes=[0, 1])
    assert stream.score(TOKENS, LABELS) > 0.7
    held_out = fit(Bag, "SGD", early_stopping=True, lr=0.5, max_epochs=40)
    assert held_out.score(TOKENS, LABELS) > 0.6


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SparseAdam])
def test_an_optimizer_that_does_not_take_the_gradients_is_named(optimizer):
    classifier = NoisyLabelClassifier(Bag, optimizer=optimizer, max_epochs=2)
    with pytest.raises(ValueError, match=f"`optimizer` .*{optimizer.__name__}.*SGD and Adagrad"):
        classifier.fit(TOKENS, LABELS)


@every_kind
def test_weights_may_be_unfrozen_later(kind):
    class Frozen(Plain):
        def __init__(self):
            super().__init__()
            self.layer.requires_grad_(False)

    unfreeze = ("unfreeze", Unfreezer("layer.*", at=3))
    chosen = fit(Frozen, kind, callbacks=[unfreeze], noise_model=None)
    plain = fit(Frozen, kind, callbacks=[unfreeze], noise_model=None, optimizer__fused=False)
    assert_allclose(predictions(chosen), predictions(plain), rtol=0, atol=2e-3)


@pytest.mark.parametrize("groups", [False, True])
def test_the_fused_step_is_taken_where_it_is_right(groups):
    weights = [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(3, dtype=torch.float64))]
    given = [{"params": [weight], "lr": 0.1} for weight in weights] if groups else weights
    assert fused_by_default(torch.optim.Adam, given, {"lr": 0.1}) == {"fused": True}
    optimizer = torch.optim.Adam(given, lr=0.1, fused=True)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    leave_fused_step(optimizer)
    assert all(group["fused"] for group in optimizer.param_groups)


@pytest.mark.parametrize(
    "weight",
    [
        torch.ones(3, dtype=torch.cfloat),
        torch.ones(3, dtype=torch.float16),
        torch.ones(3, dtype=torch.bfloat16),
        sparse(torch.ones(3)),
    ],
    ids=["complex", "half", "bfloat16", "sparse"],
)
def test_the_fused_step_is_not_begun_with_weights_that_it_does_not_train(weight):
    with_plain_ones = [nn.Parameter(torch.ones(2)), nn.Parameter(weight)]
    assert fused_by_default(torch.optim.SGD, with_plain_ones, {"lr": 0.1}) == {}


@pytest.mark.parametrize("choice", ["fused", "foreach", "capturable", "differentiable"])
def test_what_the_user_chooses_is_left_alone(choice):
    weights = [nn.Parameter(torch.ones(2))]
    assert fused_by_default(torch.optim.Adam, weights, {choice: False}) == {}
    assert fused_by_default(torch.optim.RMSprop, weights, {}) == {}


def test_an_optimizer_that_fails_with_its_fused_step_gets_the_plain_one():
    class Picky(torch.optim.SGD):
        def __init__(self, params, lr, fused=None):
            if fused:
                raise RuntimeError("not implemented")
            super().__init__(params, lr)

    fitted = NoisyLabelClassifier(optimizer=Picky, lr=0.1, random_state=0).fit(TOKENS, LABELS)
    plain = NoisyLabelClassifier(
        optimizer=torch.optim.SGD, optimizer__fused=False, lr=0.1, random_state=0
    ).fit(TOKENS, LABELS)
    assert_array_equal(fitted.predict_proba(TOKENS), plain.predict_proba(TOKENS))


@pytest.mark.parametrize(
    ("weight", "gradient"),
    [
        (torch.ones(4, 3), torch.ones(3, 4).T),
        (torch.ones(3, 4).T, torch.ones(4, 3)),
        (torch.ones(4, 6)[:, ::2], torch.ones(4, 3)),
        (torch.ones(4, 3), torch.ones(()).expand(4, 3)),
        (torch.ones(4, 3), sparse(torch.ones(4, 3))),
    ],
    ids=["turned gradient", "turned weight", "gaps", "expanded", "sparse"],
)
def test_the_fused_step_is_left_for_gradients_that_lie_in_another_way(weight, gradient):
    weights = [nn.Parameter(torch.ones(2)), nn.Parameter(weight)]
    optimizer = torch.optim.SGD(weights, lr=0.1, fused=True)
    weights[0].grad, weights[1].grad = torch.ones(2), gradient
    leave_fused_step(optimizer)
    assert not optimizer.param_groups[0]["fused"]
    optimizer.step()
    assert_allclose(weights[1].detach(), np.full((4, 3), 0.9), rtol=1e-6)
