"""The network: hidden layers, a softmax layer and a noise layer that can be taken off."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from sknoisy._model import equations as F
from sknoisy._model.annotator_noise import AnnotatorTransition
from sknoisy._model.feature_noise import FeatureTransition, SparseFeatureTransition
from sknoisy._model.noise_layers import ClassTransition, NoiseLayer
from sknoisy._model.sparse_input import SparseLinear
from sknoisy._support.memory import check_layers_fit, is_out_of_memory
from sknoisy._support.torch_state import cast_floats, floats_of_other_type, named_tensors
from sknoisy._transition.counts import floored

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
    def dropout(self) -> float:
        """Share of hidden units that is dropped in training."""
        return next((layer.p for layer in self if isinstance(layer, nn.Dropout)), 0.0)

    @dropout.setter
    def dropout(self, rate: float) -> None:
        for layer in self:
            if isinstance(layer, nn.Dropout):
                layer.p = rate

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

    def features(self, X: Any) -> Tensor:
        """Return the last hidden layer h(x), shape (n, n_hidden), in the type of the network."""
        hidden = output_of(self.hidden, X).to(self.head.weight.dtype)
        return hidden if self.hidden_scale == 1.0 else hidden / self.hidden_scale

    @torch.no_grad()
    def rescale_features(self, X: Any) -> None:
        """Let h(x) have unit root mean square on a batch on which it is too large."""
        self.hidden.eval()
        magnitude = float(output_of(self.hidden, X).double().square().mean().sqrt())
        if magnitude > _LARGEST_MAGNITUDE and math.isfinite(magnitude):
            self.hidden_scale = magnitude

    def forward(self, X: Any) -> tuple[Tensor, Tensor]:
        """Return what is known of the true label, and what the noise may depend on.

        Parameters
        ----------
        X : Tensor or SparseRows of shape (n, ...), or dict or tuple of tensors
            The values of a dict are passed to `hidden` as keyword arguments.

        Returns
        -------
        clean_log_proba : Tensor of shape (n, true)
        hidden : Tensor of shape (n, n_hidden)
            The last hidden layer h(x), for the noise layer.
        """
        hidden = self.features(X)
        return F.clean_log_proba(self.head(hidden)), hidden

    def clean_log_proba(self, X: Any) -> Tensor:
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
    sample: Any,
    n_classes: int,
    *,
    dtype: torch.dtype | None = None,
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
    sample : Tensor of shape (n, ...), or dict or tuple of tensors
        A few rows of the training data. They are passed through the hidden layers once, which
        gives n_hidden and sizes lazy layers.
    n_classes : int
    dtype : torch.dtype, default=None
        Floating point type of the network; None is that of the sample.
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
    dtype = sample.dtype if dtype is None else dtype
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
        if not isinstance(sample, Tensor):
            raise ValueError(
                "`module` must be given for several inputs a row; the default network takes one."
            )
        n_features = sample[0].numel()
        n_inputs = n_features if columns is None else len(columns)
        check_layers_fit([n_inputs, *map(int, hidden_layer_sizes)], dtype)
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
    hidden = _on_device(hidden, torch.device("cpu"))
    of_other_type = floats_of_other_type(hidden)
    cast_floats(hidden, dtype, of_other_type)
    network = NoisyLabelModule(hidden, _width(hidden, sample), n_classes)
    network.of_other_type = of_other_type
    return network.cast_(dtype)


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


def _on_device(module: nn.Module, device: torch.device) -> nn.Module:
    """Move a module that was made elsewhere, by torch's default device for instance."""
    empty = sorted(name for name, tensor in named_tensors(module) if tensor.is_meta)
    if empty:
        raise ValueError(
            "`module` must have its weights in memory; on the device 'meta', which holds no "
            f"numbers, are {', '.join(empty)}."
        )
    return module.to(device)


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
def _width(hidden: nn.Module, sample: Any) -> int:
    """Return n_hidden after a trial run of the hidden layers on a few rows."""
    hidden.eval()
    parts = list(sample.values()) if isinstance(sample, Mapping) else sample
    first = sample if isinstance(sample, Tensor) else parts[0]
    try:
        output = output_of(hidden, sample)
    except (RuntimeError, TypeError, IndexError, KeyError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        named = f"the inputs {', '.join(sample)}, and" if isinstance(sample, Mapping) else "a batch"
        raise ValueError(
            f"`module` failed on {named} of shape {tuple(first.shape)} and dtype "
            f"{first.dtype}: {error}"
        ) from error
    n_rows = len(first)
    expected = f"`module` must map a batch of {n_rows} rows to a floating point tensor of "
    expected += f"shape ({n_rows}, n_hidden)"
    if not isinstance(output, Tensor):
        raise ValueError(
            f"{expected}; it returned {_said(output)}. What has pooler_output or "
            "last_hidden_state is taken as well; wrap other modules in one whose forward returns "
            "the tensor."
        )
    two_dimensional = output.ndim == 2 and len(output) == n_rows and output.shape[1] >= 1
    if not (two_dimensional and output.is_floating_point()):
        raise ValueError(f"{expected}; it returned {output.dtype} of {tuple(output.shape)}.")
    return output.shape[1]


def output_of(hidden: nn.Module, X: Any) -> Any:
    """Return h(x) from what hidden layers return: a tensor, or what backbones return.

    Of an object or a dict it is ``pooler_output``, or else the mean of ``last_hidden_state`` over
    the positions, those that ``attention_mask`` of X leaves out aside.
    """
    output = hidden(**X) if isinstance(X, Mapping) else hidden(X)
    if isinstance(output, Tensor):
        return output
    found = output if isinstance(output, Mapping) else vars(output) if _has_vars(output) else {}
    pooled, states = found.get("pooler_output"), found.get("last_hidden_state")
    if pooled is not None:
        return pooled.flatten(1)
    if states is None:
        return output
    if states.ndim != 3:  # feature maps
        return states.flatten(2).mean(dim=2)
    mask = X.get("attention_mask") if isinstance(X, Mapping) else None
    if mask is None:
        return states.mean(dim=1)
    weight = mask.unsqueeze(2).to(states.dtype)
    return (states * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def _has_vars(output: Any) -> bool:
    return hasattr(output, "__dict__")


def _said(output: Any) -> str:
    if isinstance(output, Mapping):
        return f"{type(output).__name__} with {', '.join(map(str, output))}"
    if isinstance(output, tuple | list):
        return f"{type(output).__name__} of {len(output)} parts"
    return type(output).__name__
