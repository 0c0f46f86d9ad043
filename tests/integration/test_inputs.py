"""Several inputs, whole numbers, backbones that return objects, mixed precision."""

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from skorch.helper import SliceDict
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from sknoisy import IndexableDataset, NoisyLabelClassifier
from sknoisy.inspection import find_label_issues
from sknoisy.noise import corrupt_labels, uniform_transition

N_CODES = 17


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    keep = y < 3
    codes, y = X[keep].astype("int64"), y[keep]
    return (
        (codes / 16).astype("float32"),
        codes,
        corrupt_labels(y, uniform_transition(3, 0.2), random_state=0),
    )


@pytest.fixture
def quick():
    return NoisyLabelClassifier(
        noise_model=None, early_stopping=False, max_epochs=2, random_state=0
    )


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.pixels, self.codes = nn.Linear(64, 16), nn.Embedding(N_CODES, 16)

    def forward(self, pixels, codes):
        return torch.relu(self.pixels(pixels) + self.codes(codes).mean(1))


class OfTuple(TwoInputs):
    def forward(self, X):
        return super().forward(*X)


class Embedded(nn.Module):
    """Takes tokens with an embedding as its first layer, and notes the type that they have."""

    def __init__(self, size=N_CODES):
        super().__init__()
        self.embedding, self.hidden = nn.Embedding(size, 8), nn.Linear(8, 16)
        self.types = set()

    def forward(self, tokens):
        self.types.add(tokens.dtype)
        return torch.relu(self.hidden(self.embedding(tokens).mean(1)))


# --- Several inputs ------------------------------------------------------------------------------


def test_dictionaries_tuples_and_items_give_the_same(digits, quick):
    pixels, codes, z = digits

    class Items(Dataset):
        def __init__(self, made):
            self.made = made

        def __len__(self):
            return len(z)

        def __getitem__(self, i):
            return self.made(torch.as_tensor(pixels[i]), codes[i], int(z[i]))

    by_name = {"pixels": pixels, "codes": codes}
    forms = {
        "dict": (TwoInputs, by_name, z),
        "tensors": (TwoInputs, {k: torch.as_tensor(v) for k, v in by_name.items()}, z),
        "dict with labels": (TwoInputs, by_name | {"label": z}, None),
        "skorch": (TwoInputs, SliceDict(**by_name), z),
        "tuple": (OfTuple, (pixels, codes), z),
        "items": (TwoInputs, Items(lambda x, c, y: {"pixels": x, "codes": c, "label": y}), None),
        "items of tuples": (OfTuple, Items(lambda x, c, y: ((x, c), y)), None),
    }
    results = {
        name: clone(quick).set_params(module=module).fit(X, y).predict_proba(X)
        for name, (module, X, y) in forms.items()
    }
    for proba in results.values():
        assert_array_equal(proba, results["dict"])


def test_folds_of_several_inputs_are_row_numbers(digits, quick):
    pixels, codes, z = digits
    X = {"pixels": pixels, "codes": codes}
    quick.set_params(module=TwoInputs)
    scores = cross_val_score(quick, IndexableDataset(X), z, cv=2)
    assert_array_equal(scores, cross_val_score(quick, SliceDict(**X), z, cv=2))
    quick.set_params(noise_model="s", transition_init=np.eye(3), select_noise_model=False)
    assert len(find_label_issues(quick, X, z, cv=2).all_quality) == len(z)


def test_floats_of_several_inputs_have_the_type_of_the_network(digits, quick):
    pixels, codes, z = digits
    X = {"pixels": pixels.astype("float64"), "codes": codes.astype("int32")}
    quick.set_params(module=TwoInputs).fit(X, z)
    assert quick.net_.dtype == torch.float64
    assert quick.predict_proba({"pixels": pixels, "codes": codes}).shape == (len(z), 3)


BAD = {
    "lengths": ({"pixels": np.ones((9, 2)), "codes": np.ones((8, 2))}, r"same number of rows.*9"),
    "texts": ({"text": ["one", "two"]}, r"numbers with a row for each sample; 'text'"),
    "several lengths": ({"codes": [[1], [1, 2]]}, r"'codes' has rows of several lengths.*collate"),
    "not finite": ({"pixels": np.full((4, 2), np.nan)}, r"`X\['pixels'\]` must hold finite"),
    "default network": ({"pixels": np.ones((4, 2))}, r"`module` must be given for several inputs"),
}


@pytest.mark.parametrize(("X", "message"), BAD.values(), ids=BAD)
def test_bad_inputs_are_refused(X, message, quick):
    with pytest.raises((ValueError, TypeError), match=message):
        quick.fit(X, [0, 1] * (len(next(iter(X.values()))) // 2))


def test_inputs_of_other_names_are_refused(digits, quick):
    pixels, codes, z = digits
    quick.set_params(module=TwoInputs).fit({"pixels": pixels, "codes": codes}, z)
    with pytest.raises(ValueError, match=r"inputs codes, pixels, as in fit; got pixels"):
        quick.predict({"pixels": pixels})
    with pytest.raises(ValueError, match=r"inputs codes, pixels, as in fit; got ndarray"):
        quick.predict(pixels)
    with pytest.raises(ValueError, match=r"`module` failed on the inputs tokens"):
        quick.fit({"tokens": codes}, z)


def test_a_tuple_of_rows_is_an_array_still(quick):
    X = (np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.array([0.5, 1.0]))
    for rows in (X, tuple(np.random.default_rng(0).normal(size=(3, 3, 3)))):
        found = clone(quick).fit(rows, [0, 1, 0]).predict_proba(rows)
        expected = clone(quick).fit(np.array(rows), [0, 1, 0]).predict_proba(np.array(rows))
        assert_array_equal(found, expected)
    pictures = tuple(np.random.default_rng(0).normal(size=(20, 4, 4)))
    assert quick.fit(pictures, [0, 1] * 10).predict(pictures).shape == (20,)


# --- Whole numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["array", "int8", "list", "frame", "indexable", "instance"])
def test_tokens_reach_an_embedding_as_whole_numbers(kind, digits, quick):
    _, codes, z = digits
    module = Embedded() if kind == "instance" else Embedded
    X = {
        "int8": lambda: codes.astype("uint8"),
        "list": codes.tolist,
        "frame": lambda: pd.DataFrame(codes).add_prefix("at_"),
        "indexable": lambda: IndexableDataset(codes),
    }.get(kind, lambda: codes)()
    quick.set_params(module=module).fit(X, z)
    assert quick.predict(X).shape == (len(z),)
    assert quick.net_.network.hidden.types == {torch.int64}
    assert quick.net_.dtype == torch.float32


def test_identifiers_keep_their_digits(quick):
    class Hashed(Embedded):
        def forward(self, tokens):
            return super().forward(tokens - 2**60)

    tokens = 2**60 + np.arange(40).reshape(20, 2) % 7
    z = np.arange(20) % 2
    quick.set_params(module=Hashed).fit(tokens, z)
    shifted = clone(quick).set_params(module=Embedded).fit(tokens - 2**60, z)
    assert_array_equal(quick.predict_proba(tokens), shifted.predict_proba(tokens - 2**60))
    with pytest.raises(ValueError, match=r"no exact value in float(32|64)"):
        quick.set_params(module=lambda: nn.Linear(2, 3)).fit(tokens + 1, z)
    with pytest.raises(ValueError, match=r"no number of 64 bits with a sign"):
        quick.set_params(module=Embedded).fit(tokens.astype("uint64") + 2**63, z)


def test_a_module_asks_for_whole_numbers_by_an_attribute(digits, quick):
    pixels, codes, z = digits

    class OneHot(nn.Module):
        input_dtype = torch.int64

        def __init__(self):
            super().__init__()
            self.hidden = nn.Linear(N_CODES, 16)

        def forward(self, tokens):
            return self.hidden(nn.functional.one_hot(tokens, N_CODES).float().mean(1))

    class AsFloats(Embedded):
        input_dtype = torch.float32

        def forward(self, tokens):
            assert tokens.dtype == torch.float32
            return super().forward(tokens.long())

    quick.set_params(module=OneHot).fit(codes, z)
    quick.set_params(module=AsFloats).fit(codes, z)
    with pytest.raises(ValueError, match=r"`module` failed on a batch.*float32"):
        quick.set_params(module=Embedded).fit(pixels, z)


def test_whole_numbers_for_other_modules_are_floats_as_before(digits, quick):
    _, codes, z = digits
    quick.set_params(module=lambda: nn.Sequential(nn.Linear(64, 8), nn.ReLU()))
    expected = clone(quick).fit(codes.astype("float32"), z).predict_proba(codes)
    assert_array_equal(clone(quick).fit(codes, z).predict_proba(codes), expected)
    in_csr = sparse.csr_array(codes)
    assert_array_equal(clone(quick).fit(in_csr, z).predict_proba(in_csr), expected)


class Sentences(Dataset):
    """Tokens of varying length."""

    def __init__(self, n=80):
        rng = np.random.default_rng(0)
        self.y = rng.integers(2, size=n)
        self.tokens = [
            torch.as_tensor(rng.integers(1, 6, size=length) + 5 * label)
            for length, label in zip(rng.integers(2, 9, size=n), self.y, strict=True)
        ]

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.tokens[i], int(self.y[i])


def padded(items):
    tokens, labels = zip(*items, strict=True)
    return pad_sequence(list(tokens), batch_first=True), torch.tensor(labels)


def test_sequences_of_varying_length_are_padded_by_the_collate_fn_of_the_user(quick):
    data = Sentences()
    quick.set_params(module=Embedded, module__size=12, max_epochs=30, lr=0.02)
    quick.set_params(iterator_train__collate_fn=padded)
    assert quick.fit(data).score(data, data.y) > 0.95
    with pytest.raises(ValueError, match=r"go into one batch, which a `collate_fn` may pad; item"):
        quick.set_params(iterator_train__collate_fn=None).fit(data)
    with pytest.raises(ValueError, match=r"`collate_fn` must make a batch with a row for each"):
        quick.set_params(iterator_train__collate_fn=lambda items: padded(items[1:])).fit(data)


# --- What modules return -------------------------------------------------------------------------


class Backbone(nn.Module):
    def __init__(self, made):
        super().__init__()
        self.embedding, self.made = nn.Embedding(N_CODES, 8), made

    def forward(self, codes, attention_mask):
        return self.made(self.embedding(codes))


def pooled(states):
    return {"pooler_output": states.mean(1)}


OUTPUTS = {
    "pooled": pooled,
    "pictures": lambda states: SimpleNamespace(pooler_output=states.mean(1)[:, :, None, None]),
    "object": lambda states: SimpleNamespace(last_hidden_state=states, pooler_output=None),
    "dict": lambda states: {"last_hidden_state": states},
    "maps": lambda states: {"last_hidden_state": states.transpose(1, 2).unflatten(2, (8, 8))},
}


@pytest.mark.parametrize("made", OUTPUTS.values(), ids=OUTPUTS)
def test_backbones_that_return_objects_are_taken(made, digits, quick):
    _, codes, z = digits
    X = {"codes": codes, "attention_mask": np.ones_like(codes)}
    found = clone(quick).set_params(module=Backbone, module__made=made).fit(X, z)
    expected = quick.set_params(module=Backbone, module__made=pooled).fit(X, z)
    assert_allclose(found.predict_proba(X), expected.predict_proba(X), atol=1e-5)


def test_the_mean_of_states_leaves_padding_out(digits, quick):
    _, codes, z = digits
    mask = (np.arange(64) < 40).astype("int64") * np.ones_like(codes)
    made = {"module": Backbone, "module__made": OUTPUTS["object"]}
    found = clone(quick).set_params(**made).fit({"codes": codes, "attention_mask": mask}, z)
    other = np.where(mask, codes, 3)
    assert_array_equal(
        found.predict_proba({"codes": codes, "attention_mask": mask}),
        found.predict_proba({"codes": other, "attention_mask": mask}),
    )


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda states: (states, states), "it returned tuple of 2 parts.*wrap other modules"),
        (lambda states: {"logits": states[:, 0]}, "it returned dict with logits"),
    ],
)
def test_other_outputs_are_refused_with_what_they_hold(made, message, digits, quick):
    _, codes, z = digits
    quick.set_params(module=Backbone, module__made=made)
    with pytest.raises(ValueError, match=message):
        quick.fit({"codes": codes, "attention_mask": codes}, z)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_transformer_is_fine_tuned_with_a_learning_rate_of_its_own(frozen, digits, quick):
    transformers = pytest.importorskip("transformers")
    _, codes, z = digits
    config = transformers.BertConfig(
        vocab_size=N_CODES, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    backbone = transformers.BertModel(config)
    backbone.requires_grad_(not frozen)
    before = backbone.encoder.layer[0].output.dense.weight.clone()
    X = {"input_ids": codes[:60], "attention_mask": np.ones_like(codes[:60])}
    groups = [("encoder*", {"lr": 1e-4}), ("embeddings*", {"lr": 0.0})]
    quick.set_params(module=backbone, optimizer__param_groups=groups if not frozen else [])
    quick.fit(X, z[:60])
    after = quick.net_.network.hidden.encoder.layer[0].output.dense.weight
    assert torch.equal(before, after) == frozen
    assert torch.equal(
        backbone.embeddings.word_embeddings.weight,
        quick.net_.network.hidden.embeddings.word_embeddings.weight,
    )
    assert quick.predict_proba(X).shape == (60, 3)


def test_a_vision_backbone_is_fine_tuned(digits, quick):
    timm = pytest.importorskip("timm")
    pixels, _, z = digits
    backbone = timm.create_model("test_resnet", pretrained=False, num_classes=0, in_chans=1)
    X = np.kron(pixels[:40].reshape(-1, 1, 8, 8), np.ones((4, 4), dtype="float32"))
    quick.set_params(module=backbone, max_epochs=1).fit(X, z[:40])
    assert quick.predict_proba(X).shape == (40, 3)


# --- Mixed precision, accumulated gradients ------------------------------------------------------


class InHalfPrecision(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(64, 16)
        self.types = set()

    @torch.autocast("cpu", dtype=torch.bfloat16)
    def forward(self, X):
        hidden = self.hidden(X)
        self.types.add((self.training, hidden.dtype))
        return torch.relu(hidden)


def test_hidden_layers_compute_in_half_precision_where_their_forward_says_so(digits, quick):
    pixels, _, z = digits
    quick.set_params(module=InHalfPrecision, max_epochs=10)
    quick.fit(pixels, z)
    hidden = quick.net_.network.hidden
    assert hidden.types == {(True, torch.bfloat16), (False, torch.bfloat16)}
    assert hidden.hidden.weight.dtype == quick.net_.dtype == torch.float32
    full = clone(quick).set_params(module=lambda: nn.Sequential(nn.Linear(64, 16), nn.ReLU()))
    proba = full.fit(pixels, z).predict_proba(pixels)
    assert_allclose(quick.predict_proba(pixels), proba, atol=0.05)
    assert not np.array_equal(quick.predict_proba(pixels), proba)


class Accumulated(torch.optim.SGD):
    """Steps once for `n_batches` batches, with the mean of their gradients."""

    def __init__(self, params, n_batches=1, **kwargs):
        super().__init__(params, **kwargs)
        self.n_batches, self.n_seen, self.sums = n_batches, 0, {}

    def step(self, closure):
        loss = closure()
        parameters = [p for group in self.param_groups for p in group["params"]]
        for p in (p for p in parameters if p.grad is not None):
            self.sums[p] = self.sums.get(p, 0) + p.grad / self.n_batches
        self.n_seen += 1
        if self.n_seen % self.n_batches == 0:
            for p, gradient in self.sums.items():
                p.grad = gradient
            self.sums = {}
            super().step()
        return loss


def test_gradients_of_several_batches_make_one_step(digits, quick):
    pixels, _, z = digits
    pixels, z = pixels[:256], z[:256]
    quick.set_params(
        module=lambda: nn.Sequential(nn.Linear(64, 16), nn.ReLU()), optimizer=Accumulated, lr=0.1
    )
    halves = clone(quick).set_params(batch_size=64, optimizer__n_batches=2).fit(pixels, z)
    whole = clone(quick).set_params(batch_size=128).fit(pixels, z)
    assert_allclose(halves.predict_proba(pixels), whole.predict_proba(pixels), atol=1e-5)


@pytest.mark.skipif(sys.platform == "win32", reason="torch.compile needs a compiler")
def test_data_sets_go_with_channels_last(digits, quick):
    pixels, _, z = digits

    class Convolution(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 4, 3)

        def forward(self, X):
            X = X.to(memory_format=torch.channels_last)
            return torch.relu(self.layer(X)).flatten(1)

    rows = IndexableDataset(pixels.reshape(-1, 1, 8, 8))
    found = clone(quick).set_params(module=Convolution).fit(rows, z).predict_proba(rows)
    expected = quick.set_params(module=Convolution).fit(pixels.reshape(-1, 1, 8, 8), z)
    assert_array_equal(found, expected.predict_proba(pixels.reshape(-1, 1, 8, 8)))
