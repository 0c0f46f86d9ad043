"""Tensors, modules and the history as arrays and plain objects, for files without a pickle."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from itertools import groupby
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

# Types that numpy has not, and one of the same size that it has.
_NOT_IN_NUMPY = {torch.bfloat16: torch.int16}


class StoredTensor:
    """Stands for a tensor in a state: to be rebuilt from it is to be that tensor."""

    stored: list[Any]

    def __new__(cls, *stored: Any) -> Any:
        return _as_tensor(*stored)

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """Return what stands for a tensor."""
        stand_in = object.__new__(cls)
        stand_in.stored = _as_array(tensor)
        return stand_in

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredTensor, tuple(self.stored)


class StoredType:
    """Stands for a type of numbers in a state."""

    name: str

    def __new__(cls, name: str) -> Any:
        dtype = getattr(torch, name)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"{name!r} is not a numeric type of torch.")
        return dtype

    @classmethod
    def of(cls, dtype: torch.dtype) -> Self:
        """Return what stands for a type."""
        stand_in = object.__new__(cls)
        stand_in.name = _name_of(dtype)
        return stand_in

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredType, (self.name,)


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class StoredModule:
    """Stands for a module in a state: to be rebuilt from it is to be that module, on the CPU."""

    parts: dict[str, Any]

    def __new__(cls, parts: Mapping[str, Any]) -> Any:
        return network_from_arrays(parts, "cpu")

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        """Return what stands for a module."""
        stand_in = object.__new__(cls)
        stand_in.parts = network_to_arrays(module)
        return stand_in

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredModule, (self.parts,)


class StoredScript:
    """Stands for a module of ``torch.jit`` in a state: to be rebuilt from it is to be that module.

    It is a program for torch to run, which no file may hold without being trusted.
    """

    program: bytes

    def __new__(cls, program: bytes) -> Any:
        return torch.jit.load(BytesIO(program))

    @classmethod
    def of(cls, module: torch.jit.ScriptModule) -> Self:
        """Return what stands for a module."""
        stand_in = object.__new__(cls)
        file = BytesIO()
        torch.jit.save(module, file)
        stand_in.program = file.getvalue()
        return stand_in

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredScript, (self.program,)


def storable(value: Any) -> Any:
    """Return a value with something in the place of its tensors and modules that files can hold.

    Looks into lists, tuples and dicts. A value without tensors comes back itself.
    """
    if isinstance(value, torch.jit.ScriptModule):
        return StoredScript.of(value)
    if isinstance(value, nn.Module):
        return StoredModule.of(value)
    if isinstance(value, Tensor):
        return StoredTensor.of(value)
    if isinstance(value, torch.dtype):
        return StoredType.of(value)
    if type(value) in (list, tuple):
        items = [storable(item) for item in value]
        changed = any(new is not old for new, old in zip(items, value, strict=True))
        return type(value)(items) if changed else value
    if type(value) is dict:
        new = {key: storable(item) for key, item in value.items()}
        return new if any(new[key] is not item for key, item in value.items()) else value
    return value


def network_to_arrays(network: nn.Module) -> dict[str, Any]:
    """Return a network as a skeleton without weights and its weights as arrays.

    Arrays say nothing of the device, and are read without running code.

    Parameters
    ----------
    network : nn.Module

    Returns
    -------
    dict
        "skeleton": a copy with None for each tensor. "weights": for each parameter and buffer,
        shared ones once, a list of its names, and its values as `_as_array` returns them.
        "aliases": for each of them that is in another attribute as well, such as a list of
        weights, the name of the module, of the attribute, the path in it, and that of the tensor.
        Modules of ``torch.jit`` are in the skeleton as a whole.
    """
    scripts = dict(_scripts_in(network))
    names: dict[int, list[str]] = {}
    tensors: dict[int, Tensor] = {}
    parameters = network.named_parameters(remove_duplicate=False)
    for name, tensor in [*parameters, *network.named_buffers(remove_duplicate=False)]:
        if name.startswith(tuple(f"{script}." for script in scripts)):
            continue
        names.setdefault(id(tensor), []).append(name)
        tensors[id(tensor)] = tensor
    skeleton = copy.deepcopy(network, dict.fromkeys([*tensors, *map(id, scripts.values())]))
    for module in skeleton.modules():  # tensors that are attributes, no parameters or buffers
        vars(module).update({name: storable(value) for name, value in _attributes(module)})
    for name, script in scripts.items():
        owner, _, attribute = name.rpartition(".")
        stored: Any = StoredScript.of(script)
        skeleton.get_submodule(owner)._modules[attribute] = stored
    return {
        "skeleton": skeleton,
        "weights": [[names[key], *_as_array(tensor)] for key, tensor in tensors.items()],
        "aliases": [
            [owner, attribute, path, names[id(tensor)][0]]
            for owner, module in network.named_modules()
            for attribute, value in _attributes(module)
            for path, tensor in _tensors_in(value)
            if id(tensor) in names
        ],
    }


def _scripts_in(module: nn.Module, name: str = "") -> Iterator[tuple[str, torch.jit.ScriptModule]]:
    """Yield the modules of ``torch.jit`` that are part of others, not those inside of them."""
    for attribute, part in module._modules.items():
        part_name = f"{name}.{attribute}" if name else attribute
        if isinstance(part, torch.jit.ScriptModule):
            yield part_name, part
        elif part is not None:
            yield from _scripts_in(part, part_name)


_OF_TORCH = frozenset(vars(nn.Module()))


def _attributes(module: nn.Module) -> list[tuple[str, Any]]:
    """Return the attributes of a module that torch does not know."""
    return [(name, value) for name, value in vars(module).items() if name not in _OF_TORCH]


def _tensors_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[list[Any], Tensor]]:
    """Yield the tensors in lists, tuples and dicts, with the keys that lead to them."""
    if isinstance(value, Tensor):
        yield list(path), value
    elif type(value) in (list, tuple):
        for i, item in enumerate(value):
            yield from _tensors_in(item, (*path, i))
    elif type(value) is dict:
        for key, item in value.items():
            yield from _tensors_in(item, (*path, key))


def _with_tensor(value: Any, path: list[Any], tensor: Tensor) -> Any:
    """Return a value that has a tensor where the path leads."""
    if not path:
        return tensor
    items = dict(value) if isinstance(value, dict) else list(value)
    items[path[0]] = _with_tensor(items[path[0]], path[1:], tensor)
    return tuple(items) if isinstance(value, tuple) else items


def network_from_arrays(parts: Mapping[str, Any], device: str | torch.device) -> nn.Module:
    """Return the network that `network_to_arrays` took apart, on a device.

    Raises
    ------
    ValueError
        If the weights are not those of the network.
    """
    network: nn.Module = parts["skeleton"]
    for _, script in _scripts_in(network):
        script.to(device)
    for names, *stored in parts["weights"]:
        tensor = _on_device(_as_tensor(*stored), device)
        for name in names:
            owner, _, attribute = name.rpartition(".")
            module = network.get_submodule(owner)
            slots = module._parameters if isinstance(tensor, nn.Parameter) else module._buffers
            if attribute not in slots:
                raise ValueError(f"The weights hold {name!r}, which the network does not have.")
            setattr(module, attribute, tensor)
    for owner, attribute, path, name in parts["aliases"]:
        module, tensor = network.get_submodule(owner), _named(network, name)
        vars(module)[attribute] = _with_tensor(vars(module)[attribute], path, tensor)
    return network


def _named(network: nn.Module, name: str) -> Tensor:
    owner, _, attribute = name.rpartition(".")
    tensor: Tensor = getattr(network.get_submodule(owner), attribute)
    return tensor


def _as_array(tensor: Tensor) -> list[Any]:
    """Return an array, None for a buffer or whether a parameter is trained, and a type or None.

    The array is None where a lazy module has not been given its shape.
    """
    trained = tensor.requires_grad if isinstance(tensor, nn.Parameter) else None
    if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
        return [None, trained, None]
    values = tensor.detach().cpu().resolve_conj().resolve_neg()
    if values.dtype in _NOT_IN_NUMPY:
        in_numpy = values.view(_NOT_IN_NUMPY[values.dtype]).numpy()
        return [in_numpy, trained, _name_of(values.dtype)]
    return [values.numpy(), trained, None]


def _as_tensor(
    array: np.ndarray | None,
    trained: bool | None,
    dtype: str | None = None,
) -> Tensor:
    if array is None:
        return (
            UninitializedBuffer()
            if trained is None
            else UninitializedParameter(requires_grad=trained)
        )
    tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    if dtype is not None:
        tensor = tensor.view({_name_of(t): t for t in _NOT_IN_NUMPY}[dtype])
    return tensor if trained is None else nn.Parameter(tensor, requires_grad=trained)


def _on_device(tensor: Tensor, device: str | torch.device) -> Tensor:
    if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
        return tensor
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(tensor.detach().to(device), requires_grad=tensor.requires_grad)
    return tensor.to(device)


def as_columns(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a table in blocks of rows with the same keys and stage, to take less space.

    Returns
    -------
    list of dict
        "n_rows" of the block, its "constant" values, and for other keys "columns": arrays of
        numbers, lists of anything else. "batches" holds the tables that stand in the rows under
        this name: how many rows each has, and for each key where it is and its column.
    """

    def keys_and_stage(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return *row, row.get("stage")

    blocks = [list(block) for _, block in groupby(rows, key=keys_and_stage)]
    return [_as_block(block) for block in blocks]


def _as_block(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    constant, columns = {}, {}
    for key in rows[0]:
        values = [row[key] for row in rows]
        if key == "batches":
            continue
        if all(type(value) is str for value in values) and len(set(values)) == 1:
            constant[key] = values[0]
        else:
            columns[key] = _as_column(values)
    if not columns and "batches" not in rows[0]:  # a column says how many rows there are
        constant, columns = {}, {key: [row[key] for row in rows] for key in rows[0]}
    block = {"n_rows": len(rows), "constant": constant, "columns": columns}
    if "batches" not in rows[0]:
        return block
    return block | {"batches": _as_batch_columns([row["batches"] for row in rows])}


def _as_batch_columns(tables: list[list[dict[str, Any]]]) -> dict[str, Any]:
    batches = [batch for table in tables for batch in table]
    columns = {}
    for key in dict.fromkeys(key for batch in batches for key in batch):
        present = [key in batch for batch in batches]
        column = [batch[key] for batch in batches if key in batch]
        if key.endswith("_batch_size"):  # the same in each epoch
            column = _first_of(len(tables), column)
        columns[key] = [_as_column(_first_of(len(tables), present)), _as_column(column)]
    return {"counts": np.array([len(table) for table in tables]), "columns": columns}


def _first_of(n_epochs: int, values: list[Any]) -> list[Any]:
    """Return the values of one epoch if those of all are the same, else all."""
    one = values[: len(values) // n_epochs]
    return one if one * n_epochs == values else values


def _as_column(values: list[Any]) -> Any:
    """Return numbers as an array of the smallest type that has all their digits."""
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return np.array(values)
    if kinds == {int} and max(map(abs, values)) < 2**31:
        return np.array(values, dtype=np.int32)
    if kinds != {float}:
        return values
    with np.errstate(over="ignore"):
        single = np.array(values, dtype=np.float32)
    return single if single.tolist() == values else np.array(values)


def as_rows(blocks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a table that `as_columns` turned.

    Raises
    ------
    ValueError
        If a block says that it has more rows, or fewer, than its columns.
    """
    rows = []
    for block in blocks:
        n_rows = block["n_rows"]
        columns = {key: _as_list(column) for key, column in block["columns"].items()}
        batches = block.get("batches")
        if batches is not None:
            columns["batches"] = _batches_of_rows(batches)
        _check_lengths(n_rows, columns.values())
        rows += [
            {**block["constant"], **{key: column[i] for key, column in columns.items()}}
            for i in range(n_rows)
        ]
    return rows


def _batches_of_rows(batches: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    counts = _as_list(batches["counts"])
    n_batches, stored = sum(counts), sum(len(column) for _, column in batches["columns"].values())
    if n_batches > 16 * (stored + len(counts)) or any(count < 0 for count in counts):
        raise ValueError(f"The history says that it has {n_batches} batches; {stored} are there.")
    tables: list[dict[str, Any]] = [{} for _ in range(n_batches)]
    for key, (present, column) in batches["columns"].items():
        present = _repeated(present, n_batches)
        holding = [table for table, has in zip(tables, present, strict=True) if has]
        for table, value in zip(holding, _repeated(column, len(holding)), strict=True):
            table[key] = value
    rest = iter(tables)
    return [[next(rest) for _ in range(count)] for count in counts]


def _repeated(column: Any, n_rows: int) -> list[Any]:
    """Return a column that is kept once for all epochs as often as it is needed."""
    times, rest = divmod(n_rows, max(1, len(column)))
    if rest or len(column) * times != n_rows:
        _check_lengths(n_rows, [column])
    return _as_list(column) * times


def _as_list(column: Any) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else column


def _check_lengths(n_rows: int, columns: Iterable[Any]) -> None:
    lengths = {len(column) for column in columns}
    if lengths != {n_rows}:
        raise ValueError(
            f"The history says that it has {n_rows} rows that are alike; its columns have "
            f"{sorted(lengths)} rows."
        )
