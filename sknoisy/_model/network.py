"""The network: hidden layers, a softmax layer and a noise layer that can be taken off."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from sknoisy._data.sparse_rows import SparseRows
from sknoisy._model import equations as F
from sknoisy._model.annotator_noise import AnnotatorTransition
from sknoisy._model.feature_noise import FeatureTransition, SparseFeatureTransition
from sknoisy._model.noise_layers import ClassTransition, NoiseLayer
from sknoisy._model.sparse_input import SparseLinear
from sknoisy._support.memory import check_memory, is_out_of_memory
from sknoisy._transition.counts import floored

_NO_QUESTION = 2**26  # bytes that any machine has

Module = TypeVar("Module", bound=nn.Module)

#: Root mean square of h(x) before training above which it is scaled.
_LARGEST_MAGNITUDE = 10.0


class Standardization(nn.Module):
    """Flatten a batch and standardise its columns, ``(x - mean) / scale``.

    Parameters
    ----------
    n_features : int
        Number of columns. Mean zero and scale one, until `reset` sets them.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))

    @torch.no_grad()
    def reset(self, mean: np.ndarray, scale: np.ndarray) -> None:
        """Set mean and scale of the columns, arrays of shape (n_features,)."""
        self.mean.copy_(torch.as_tensor(mean))
        self.scale.copy_(torch.as_tensor(scale))

    def forward(self, X: Tensor) -> Tensor:
        """Return the standardised columns, shape (n, n_features)."""
        return (X.flatten(1) - self.mean).div_(self.scale)

    def extra_repr(self) -> str:
        """Say how many columns there are."""
        return f"n_features={len(self.mean)}"


class MLP(nn.Sequential):
    """Fully connected hidden layers with ReLU, each followed by dropout, on standardised columns.

    Parameters
    ----------
    n_features : int
        Number of input features. Inputs of more dimensions are flattened.
    hidden_layer_sizes : sequence of int, default=(100,)
        Units of each hidden layer; the last one is n_hidden.
    dropout : float, default=0.0
        Share of hidden units that is dropped in training.
    columns : ndarray of int, default=None
        The columns that occur in sparse data, for a first layer that takes them as they are.
    """

    def __init__(
        self,
        n_features: int,
        hidden_layer_sizes: Sequence[int] = (100,),
        dropout: float = 0.0,
        columns: np.ndarray | None = None,
    ) -> None:
        first = Standardization(n_features) if columns is None else nn.Identity()
        layers: list[nn.Module] = [first]
        for n_in, n_out in pairwise([n_features, *hidden_layer_sizes]):
            if columns is not None and len(layers) == 1:
                layers += [SparseLinear(n_in, n_out, torch.as_tensor(columns)), nn.ReLU()]
            else:
                layers += [nn.Linear(n_in, n_out), nn.ReLU()]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
        super().__init__(*layers)

    @property
    def sparse_input(self) -> SparseLinear | None:
        """The first layer, if it takes sparse data as they are."""
        first = self[1] if len(self) > 1 else None
        return first if isinstance(first, SparseLinear) else None

    @property
    def standardization(self) -> Standardization | None:
        """The layer that standardises the input, unless sparse data are taken as they are."""
        return self[0] if isinstance(self[0], Standardization) else None

    @torch.no_grad()
    def reset_standardization(self, mean: np.ndarray, scale: np.ndarray) -> None:
        """Set mean and scale of the input, arrays of shape (n_features,).

        Sparse data that are taken as they are, are not centred.
        """
        if self.standardization is not None:
            self.standardization.reset(mean, scale)
        elif self.sparse_input is not None:
            self.sparse_input.reset_scale(scale)

    @torch.no_grad()
    def restandardize(self, mean: np.ndarray, scale: np.ndarray) -> None:
        """Change mean and scale of the input so that the layers still compute the same.

        A column that was constant, of infinite scale, keeps its weights, and rows with the old
        value their output.

        Parameters
        ----------
        mean, scale : ndarray of shape (n_features,)
        """
        if self.sparse_input is not None:
            before = self.sparse_input.scale.clone()
            self.sparse_input.reset_scale(scale)
            ratio = self.sparse_input.scale / before
            self.sparse_input.weight.mul_(_finite(ratio).unsqueeze(1))
            return
        standardization = self.standardization
        assert standardization is not None
        old_mean, old_scale = standardization.mean.clone(), standardization.scale.clone()
        standardization.reset(mean, scale)
        if len(self) > 1:
            first, new_scale = cast(nn.Linear, self[1]), standardization.scale
            old_scale = torch.where(old_scale.isinf(), new_scale, old_scale)
            first.bias.add_(first.weight @ ((standardization.mean - old_mean) / old_scale))
            first.weight.mul_(_finite(new_scale / old_scale))


def _finite(ratio: Tensor) -> Tensor:
    """Return ratios of scales, one where either belongs to a constant column."""
    return ratio.nan_to_num(1.0, posinf=1.0).where(ratio != 0, 1.0)


class NoisyLabelModule(nn.Module):
    """Hidden layers, softmax layer and, in training, a noise layer on top.

    Parameters
    ----------
    hidden : nn.Module
        Maps a batch to h(x), a tensor of shape (n, n_hidden).
    n_hidden : int
        Width of h(x).
    n_classes : int
        Number of classes.

    Attributes
    ----------
    noise : NoiseLayer or None
        The noise layer; None means that observed labels are taken for the true ones.
    of_other_type : list of str
        Names in `hidden` of tensors that keep their type when that of the network changes.
    hidden_scale : float
        What the output of `hidden` is divided by to give h(x). One, unless that output was so
        large before any training that the softmax layer would have started saturated: its
        posteriors would then hold on to a wrong class, and pass on no gradient.
    """

    noise: NoiseLayer | None

    def __init__(self, hidden: nn.Module, n_hidden: int, n_classes: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.head = nn.Linear(n_hidden, n_classes)
        self.register_module("noise", None)
        self.of_other_type: list[str] = []
        self.hidden_scale = 1.0

    @property
    def noise_model(self) -> str | None:
        """What the noise layer stands for: "s", "c", or None without one."""
        if self.noise is None:
            return None
        return "c" if self.noise.depends_on_features else "s"

    def features(self, X: Tensor | SparseRows) -> Tensor:
        """Return the last hidden layer h(x), shape (n, n_hidden), in the type of the network."""
        hidden: Tensor = self.hidden(X).to(self.head.weight.dtype)
        return hidden if self.hidden_scale == 1.0 else hidden / self.hidden_scale

    @torch.no_grad()
    def rescale_features(self, X: Tensor) -> None:
        """Let h(x) have unit root mean square on a batch on which it is too large."""
        self.hidden.eval()
        magnitude = float(self.hidden(X).double().square().mean().sqrt())
        if magnitude > _LARGEST_MAGNITUDE and math.isfinite(magnitude):
            self.hidden_scale = magnitude

    def forward(self, X: Tensor | SparseRows) -> tuple[Tensor, Tensor]:
        """Return what is known of the true label, and what the noise may depend on.

        Parameters
        ----------
        X : Tensor or SparseRows of shape (n, ...)

        Returns
        -------
        clean_log_proba : Tensor of shape (n, true)
        hidden : Tensor of shape (n, n_hidden)
            The last hidden layer h(x), for the noise layer.
        """
        hidden = self.features(X)
        return F.clean_log_proba(self.head(hidden)), hidden

    def clean_log_proba(self, X: Tensor | SparseRows) -> Tensor:
        """Log-probabilities of the true label, shape (n, true): the noise layer is off."""
        return F.clean_log_proba(self.head(self.features(X)))

    @property
    def sparse_input(self) -> SparseLinear | None:
        """The first layer, if it takes sparse data as they are."""
        return self.hidden.sparse_input if isinstance(self.hidden, MLP) else None

    @property
    def takes_sparse(self) -> bool:
        """Whether batches of sparse data are best left as they are."""
        return self.sparse_input is not None

    def cast_(self, dtype: torch.dtype) -> NoisyLabelModule:
        """Change the floating point type of the network in place, and return it."""
        cast_floats(self.hidden, dtype, self.of_other_type)
        self.head.to(dtype)
        if self.noise is not None:
            self.noise.to(dtype)
        return self

    def multiplications_per_row(self) -> int | None:
        """Count the products of weights for one row, None where a weight may have more than one."""
        parts = [part for part in self.modules() if list(part.parameters(recurse=False))]
        if not all(isinstance(part, nn.Linear | NoiseLayer) for part in parts):
            return None
        return sum(weight.numel() for weight in self.parameters())

    def attach_class_noise(
        self, transition: np.ndarray, *, learnable: bool = True, n_targets: int | None = None
    ) -> None:
        """Put the noise layer of the s-model on top, starting from a matrix (true, observed)."""
        start = self._floored(transition)
        self._attach(ClassTransition(start, learnable=learnable, n_targets=n_targets))

    def attach_feature_noise(self, transition: np.ndarray, *, n_targets: int | None = None) -> None:
        """Put the noise layer of the c-model on top, starting from a matrix (true, observed)."""
        start, n_hidden = self._floored(transition), self.head.in_features
        if n_targets is None:
            self._attach(FeatureTransition(start, n_hidden))
        else:
            self._attach(SparseFeatureTransition(start, n_hidden, n_targets))

    def attach_annotator_noise(
        self, transitions: np.ndarray, n_answers: np.ndarray, **parameters: Any
    ) -> None:
        """Put the noise layer of several answers a row on top; see `AnnotatorTransition`."""
        noise = AnnotatorTransition(floored(transitions), n_answers, **parameters)
        self._attach(noise.to(self.head.weight.dtype))

    def let_noise_depend_on_features(self, *, n_targets: int | None = None) -> None:
        """Start the c-model from the s-model: b_ij is taken over, u_ij = 0."""
        assert self.noise is not None
        self.attach_feature_noise(self.noise.matrix(), n_targets=n_targets)

    def _attach(self, noise: NoiseLayer) -> None:
        self.noise = noise.to(self.head.weight.device)

    def _floored(self, transition: np.ndarray) -> Tensor:
        start = floored(np.asarray(transition, dtype=np.float64))
        return torch.from_numpy(start).to(self.head.weight.dtype)


def build_network(
    module: nn.Module | Callable[..., nn.Module] | None,
    module_params: Mapping[str, Any],
    sample: Tensor,
    n_classes: int,
    *,
    hidden_layer_sizes: Sequence[int],
    dropout: float,
    columns: np.ndarray | None = None,
) -> NoisyLabelModule:
    """Build the network around the user's hidden layers or around the default ones.

    Parameters
    ----------
    module : nn.Module, class or factory of one, or None
        The hidden layers. An instance is copied; None means an `MLP`.
    module_params : mapping
        Keyword arguments of a class or factory.
    sample : Tensor of shape (n, ...)
        A few rows of the training data, in the dtype that the network will have. They are
        passed through the hidden layers once, which gives n_hidden and sizes lazy layers.
    n_classes : int
    hidden_layer_sizes : sequence of int
    dropout : float
    columns : ndarray of int, default=None
        The last three describe the default network and are not used with a `module`. The columns
        are those that occur in wide sparse data.

    Raises
    ------
    ValueError
        If `module` cannot be built with its parameters, or does not map a batch to a floating
        point tensor of shape (n, n_hidden).
    """
    if module is None:
        if module_params:
            raise ValueError(
                "Parameters for `module` were given but `module` is None: "
                f"{_with_prefix(module_params)}. The default network is set by "
                "`hidden_layer_sizes` and `dropout`."
            )
        if not all(_is_size(size) for size in hidden_layer_sizes):
            raise ValueError(
                "`hidden_layer_sizes` must hold integers of at least 1; got "
                f"{hidden_layer_sizes!r}."
            )
        n_features = sample[0].numel()
        n_inputs = n_features if columns is None else len(columns)
        _check_layers_fit([n_inputs, *map(int, hidden_layer_sizes)], sample.dtype)
        hidden: nn.Module = MLP(n_features, hidden_layer_sizes, dropout, columns)
    elif isinstance(module, nn.Module):
        if module_params:
            raise ValueError(
                f"`module` is an instance, its parameters cannot be set: got "
                f"{_with_prefix(module_params)}. Pass the class instead."
            )
        hidden = copied(module)
    else:
        hidden = _call_factory(module, module_params)
    hidden = _on_device(hidden, sample.device)
    of_other_type = floats_of_other_type(hidden)
    cast_floats(hidden, sample.dtype, of_other_type)
    network = NoisyLabelModule(hidden, _width(hidden, sample), n_classes)
    network.of_other_type = of_other_type
    return network.cast_(sample.dtype)


def copied(module: Module) -> Module:
    """Return a deep copy that can be trained, of a module from ``torch.jit`` as well.

    Such a module copies its weights as if the copies were results of a computation.
    """
    with torch.no_grad():
        copy_ = copy.deepcopy(module)
    for weight, original in zip(copy_.parameters(), module.parameters(), strict=True):
        if weight.requires_grad != original.requires_grad:
            weight.requires_grad_(original.requires_grad)
    return copy_


def floats_of_other_type(module: nn.Module) -> list[str]:
    """Return the names of floating point tensors of another type than that of the module.

    That is the type of its trained weights; of several types float32, torch's default, or else
    the widest. A table in half precision and constants in float64 are meant to be what they are.
    """
    weights = [weight for weight in module.parameters() if weight.is_floating_point()]
    trained = [weight for weight in weights if weight.requires_grad]
    types = {weight.dtype for weight in trained or weights}
    ranked = sorted(types, key=lambda dtype: (dtype == torch.float32, dtype.itemsize))
    own = ranked[-1] if ranked else torch.float32
    return [
        name
        for name, tensor in _named_tensors(module)
        if tensor.is_floating_point() and tensor.dtype != own
    ]


def cast_floats(module: nn.Module, dtype: torch.dtype, but: Collection[str]) -> None:
    """Change the type of floating point weights and buffers in place.

    ``module.to(dtype)`` would take complex numbers along, without their imaginary part.

    Parameters
    ----------
    module : nn.Module
    dtype : torch.dtype
    but : collection of str
        Names of those that keep their type.
    """
    kept = {id(tensor) for name, tensor in _named_tensors(module) if name in but}
    module._apply(
        lambda tensor: (
            tensor.to(dtype) if tensor.is_floating_point() and id(tensor) not in kept else tensor
        )
    )


def _named_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    parameters = module.named_parameters(remove_duplicate=False)
    return [*parameters, *module.named_buffers(remove_duplicate=False)]


def _on_device(module: nn.Module, device: torch.device) -> nn.Module:
    """Move a module that was made elsewhere, by torch's default device for instance."""
    empty = sorted(name for name, tensor in _named_tensors(module) if tensor.is_meta)
    if empty:
        raise ValueError(
            "`module` must have its weights in memory; on the device 'meta', which holds no "
            f"numbers, are {', '.join(empty)}."
        )
    return module.to(device)


def _check_layers_fit(sizes: list[int], dtype: torch.dtype) -> None:
    """Refuse the default network if there is no memory for its weights and their gradients."""
    n_weights = sum(n_in * n_out for n_in, n_out in pairwise(sizes))
    needed = 2 * n_weights * dtype.itemsize
    if needed > _NO_QUESTION:
        check_memory(
            needed,
            "cpu",
            f"Training hidden layers of {sizes[1:]} units on {sizes[0]} features, {n_weights:,} "
            "weights,",
            "Lower `hidden_layer_sizes`, or the number of features.",
        )


def _is_size(size: Any) -> bool:
    return isinstance(size, Integral) and not isinstance(size, bool) and int(size) >= 1


def _with_prefix(module_params: Mapping[str, Any]) -> str:
    return ", ".join(sorted(f"module__{name}" for name in module_params))


def _call_factory(factory: Callable[..., nn.Module], params: Mapping[str, Any]) -> nn.Module:
    try:
        hidden = factory(**params)
    except TypeError as error:
        name = getattr(factory, "__name__", repr(factory))
        accepted = ", ".join(f"module__{name}" for name in inspect.signature(factory).parameters)
        raise ValueError(
            f"`module` {name} could not be built from ({_with_prefix(params)}): {error}. "
            f"It takes: {accepted or 'no parameters'}."
        ) from error
    if not isinstance(hidden, nn.Module):
        raise ValueError(
            "`module` must be an nn.Module, a class of one, or a callable that returns one; "
            f"calling it gave {type(hidden).__name__}."
        )
    return hidden


@torch.no_grad()
def _width(hidden: nn.Module, sample: Tensor) -> int:
    """Return n_hidden after a trial run of the hidden layers on a few rows."""
    hidden.eval()
    try:
        output = hidden(sample)
    except (RuntimeError, TypeError, IndexError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"`module` failed on a batch of shape {tuple(sample.shape)} and dtype "
            f"{sample.dtype}: {error}"
        ) from error
    expected = f"`module` must map a batch of {len(sample)} rows to a floating point tensor of "
    expected += f"shape ({len(sample)}, n_hidden)"
    if not isinstance(output, Tensor):
        raise ValueError(f"{expected}; it returned {type(output).__name__}.")
    two_dimensional = output.ndim == 2 and len(output) == len(sample) and output.shape[1] >= 1
    if not (two_dimensional and output.is_floating_point()):
        raise ValueError(f"{expected}; it returned {output.dtype} of {tuple(output.shape)}.")
    return output.shape[1]
