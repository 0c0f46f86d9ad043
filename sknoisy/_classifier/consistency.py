"""Whether the parts of a fitted classifier that comes from a file fit each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from sknoisy._model.network import MLP, NoisyLabelModule
from sknoisy._model.noise_layers import NoiseLayer
from sknoisy._model.sparse_input import SparseLinear
from sknoisy._net.net import SkorchNet


def check_consistent(state: Mapping[str, Any]) -> None:
    """Refuse attributes of a fitted classifier that do not fit each other.

    Nothing is computed: the layers of the package are passed shapes only, and those of the user
    are compared with the sizes that they declare.

    Parameters
    ----------
    state : mapping
        Attributes by name; nothing is refused if there is no fitted net among them.

    Raises
    ------
    ValueError
        Naming the first part that does not fit.
    """
    if "net_" not in state:
        return
    try:
        _check_net(state)
        _check_arrays(state)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"A part of the fitted classifier is missing or broken: {error}"
        ) from error


def _check_net(state: Mapping[str, Any]) -> None:
    net, n_classes = state["net_"], len(state["classes_"])
    _require(isinstance(net, SkorchNet), "net_", SkorchNet, net)
    network = net.network
    _require(isinstance(network, NoisyLabelModule), "network", NoisyLabelModule, network)
    head, noise = network.head, network.noise
    _require(isinstance(head, nn.Linear), "the softmax layer", nn.Linear, head)
    _require(head.out_features == n_classes, "the softmax layer", n_classes, head.out_features)
    for name, layer in network.named_modules():
        for attribute, shape in _declared_shapes(layer).items():
            tensor = getattr(layer, attribute)
            found = None if tensor is None else tuple(tensor.shape)
            may_miss = attribute == "bias" or "running_mean" in vars(layer)["_buffers"]
            _require(
                found == shape or (found is None and may_miss), f"{name}.{attribute}", shape, found
            )
    tensors = [*network.parameters(), *network.buffers()]
    places = sorted({tensor.device.type for tensor in tensors})
    _require(places == [torch.device(net.device).type], "the weights", net.device, places)
    _require("meta" not in places, "`device`", "one that holds numbers", "meta")
    ours = [("the softmax layer", head)]
    if noise is not None:
        _require(isinstance(noise, NoiseLayer), "the noise layer", NoiseLayer, noise)
        ours.append(("the noise layer", noise))
    if isinstance(network.hidden, MLP):
        ours.append(("the hidden layers", network.hidden))
        _check_passes(network.hidden, state["_row_shape"], (head.in_features,), "the hidden layers")
    _check_passes(head, (head.in_features,), (n_classes,), "the softmax layer")
    for name, layer in ours:
        types = {p.dtype for p in layer.parameters()} - {head.weight.dtype}
        _require(not types, name, head.weight.dtype, types)
    _require(head.weight.dtype in (torch.float32, torch.float64), "weights", "floats", head.weight)
    if noise is not None:
        _check_noise(noise, head.in_features, n_classes)


def _check_noise(noise: NoiseLayer, n_hidden: int, n_classes: int) -> None:
    for name, (shape, bound) in noise.layout(n_classes, n_hidden).items():
        tensor = getattr(noise, name)
        found = None if tensor is None else tuple(tensor.shape)
        _require(found == shape, f"{name} of the noise layer", shape, found)
        if bound is not None:
            inside = not tensor.is_floating_point() and bool(
                ((tensor >= 0) & (tensor < bound)).all()
            )
            _require(inside, name, f"integers from 0 to {bound - 1}", tensor.dtype)


def _check_passes(layer: nn.Module, n_in: Any, n_out: tuple[int, ...], name: str) -> None:
    found = tuple(_passed(layer, tuple(n_in), name).shape[1:])
    _require(found == n_out, name, n_out, found)


def _passed(layer: nn.Module, row_shape: tuple[int, ...], name: str) -> Tensor:
    """Return the output of a layer for two rows, without numbers and without memory for them."""
    tensors = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
    dtype = next((t.dtype for t in tensors.values() if t.is_floating_point()), torch.float32)
    shapes = {key: tensor.detach().to("meta") for key, tensor in tensors.items()}
    rows = torch.empty(2, *row_shape, dtype=dtype, device="meta")
    try:
        with torch.no_grad():
            return functional_call(layer, shapes, (rows,))
    # What a layer of a file raises on such rows: shapes that do not match or no `forward`, which
    # is a RuntimeError too, a dimension that is not there, a setting of another type. All are
    # refused, with the cause.
    except (RuntimeError, IndexError, TypeError) as error:
        raise ValueError(
            f"The parts of the fitted classifier do not fit each other: {name} cannot be passed "
            f"rows of shape {row_shape}: {error}"
        ) from error


def _declared_shapes(layer: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of weights that a layer of torch says it has."""
    shapes: dict[str, tuple[int, ...]] = {}
    if type(layer) is nn.Linear:
        shapes = {"weight": (layer.out_features, layer.in_features), "bias": (layer.out_features,)}
    elif type(layer) is SparseLinear:
        shapes = {"weight": (len(layer.columns), layer.n_out), "bias": (layer.n_out,)}
    elif type(layer) in (nn.Embedding, nn.EmbeddingBag):
        shapes = {"weight": (layer.num_embeddings, layer.embedding_dim)}
    elif type(layer) in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        channels = layer.in_channels // layer.groups
        shapes = {"weight": (layer.out_channels, channels, *layer.kernel_size)}
        shapes["bias"] = (layer.out_channels,)
    elif type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        names = ("weight", "bias", "running_mean", "running_var")
        shapes = dict.fromkeys(names, (layer.num_features,))
    return shapes


def _check_arrays(state: Mapping[str, Any]) -> None:
    classes, n_classes = state["classes_"], len(state["classes_"])
    distinct = isinstance(classes, np.ndarray) and classes.ndim == 1 and n_classes > 1
    distinct = distinct and len(set(classes.tolist())) == n_classes
    _require(distinct, "classes_", "at least two different labels", classes)
    shapes = {
        "_log_class_weight": (n_classes,),
        "class_prior_": (n_classes,),
        "transition_matrix_": (n_classes, n_classes),
        "initial_transition_matrix_": (n_classes, n_classes),
    }
    if "annotators_" in state:
        n_annotators = len(state["annotators_"])
        shapes |= {
            "annotator_transitions_": (n_annotators, n_classes, n_classes),
            "annotator_quality_": (n_annotators,),
            "annotator_quality_error_": (n_annotators,),
        }
    for name, shape in shapes.items():
        if name not in state and name.startswith("initial"):  # in the middle of a fit
            continue
        values = np.asarray(state[name])
        _require(values.shape == shape, name, shape, values.shape)
        numbers = values.dtype.kind == "f" and bool(np.isfinite(values).all())
        _require(numbers, name, "finite numbers", values.dtype)
        if name.endswith("matrix_"):
            rows = bool((values >= 0).all()) and bool(np.allclose(values.sum(axis=1), 1, atol=1e-3))
            _require(rows, name, "rows that sum to one", values.sum(axis=1))
    row_shape = tuple(state["_row_shape"])
    sizes = all(isinstance(size, int) and size >= 0 for size in row_shape)
    _require(sizes and math.prod(row_shape) >= 0, "the shape of a row", "sizes", row_shape)
    n_features = state.get("n_features_in_")
    if row_shape and n_features is not None:
        _require(n_features == row_shape[0], "n_features_in_", row_shape[0], n_features)
    if "feature_names_in_" in state:
        n_names = len(state["feature_names_in_"])
        _require(n_names == n_features, "feature_names_in_", n_features, n_names)


def _require(holds: bool, what: str, expected: Any, found: Any) -> None:
    if not holds:
        raise ValueError(
            f"The parts of the fitted classifier do not fit each other: {what} must have or be "
            f"{_said(expected)}; got {_said(found)}."
        )


def _said(value: Any) -> str:
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, nn.Module | SkorchNet):
        return type(value).__name__
    return repr(value)
