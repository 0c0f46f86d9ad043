"""A trained net as plain objects and arrays, for files."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def take_apart(network: nn.Module) -> dict[str, Any]:
    """Return a network as a skeleton without weights and its weights as arrays.

    Arrays say nothing of the device, and are read without running code.

    Parameters
    ----------
    network : nn.Module

    Returns
    -------
    dict
        "skeleton": a copy with None for each tensor. "weights": for each parameter and buffer,
        shared ones once, a list of its names, an array, and None for a buffer or whether
        the parameter is trained.
    """
    names: dict[int, list[str]] = {}
    tensors: dict[int, Tensor] = {}
    parameters = network.named_parameters(remove_duplicate=False)
    for name, tensor in [*parameters, *network.named_buffers(remove_duplicate=False)]:
        names.setdefault(id(tensor), []).append(name)
        tensors[id(tensor)] = tensor
    return {
        "skeleton": copy.deepcopy(network, dict.fromkeys(tensors)),
        "weights": [
            [
                names[key],
                tensor.detach().cpu().numpy(),
                tensor.requires_grad if isinstance(tensor, nn.Parameter) else None,
            ]
            for key, tensor in tensors.items()
        ],
    }


def put_together(parts: Mapping[str, Any], device: str | torch.device) -> nn.Module:
    """Return the network that `take_apart` took apart, on a device."""
    network: nn.Module = parts["skeleton"]
    for names, array, trained in parts["weights"]:
        tensor = torch.from_numpy(array).to(device)
        if trained is not None:
            tensor = nn.Parameter(tensor, requires_grad=trained)
        for name in names:
            owner, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(owner), attribute, tensor)
    return network


def as_columns(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a table in blocks of rows with the same keys and stage, to take less space.

    Returns
    -------
    list of dict
        "n_rows" of the block, its "constant" values, and for other keys "columns": arrays of
        numbers, lists of anything else.
    """

    def keys_and_stage(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return *row, row.get("stage")

    blocks = [list(block) for _, block in groupby(rows, key=keys_and_stage)]
    return [_as_block(block) for block in blocks]


def _as_block(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    constant, columns = {}, {}
    for key in rows[0]:
        values = [row[key] for row in rows]
        kinds = {type(value) for value in values}
        if kinds <= {str} and len(set(values)) == 1:
            constant[key] = values[0]
        else:
            columns[key] = np.array(values) if kinds in ({float}, {int}) else values
    return {"n_rows": len(rows), "constant": constant, "columns": columns}


def as_rows(blocks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a table that `as_columns` turned."""
    rows = []
    for block in blocks:
        columns = {
            key: column.tolist() if isinstance(column, np.ndarray) else column
            for key, column in block["columns"].items()
        }
        rows += [
            {**block["constant"], **{key: column[i] for key, column in columns.items()}}
            for i in range(block["n_rows"])
        ]
    return rows
