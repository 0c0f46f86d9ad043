"""Archives of models, checked before they are unpacked: no more memory than they have reason to."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator
from io import BytesIO
from typing import IO, Any

import numpy as np

ARCHIVE_BEGINS = b"PK\x03\x04"

_MOST_TIMES_LARGER = 32
_ALWAYS_ALLOWED = 2**24
_BYTES_AT_ONCE = 2**12  # some decompressors give all that is in what they are given

# How skops makes objects without a call of their class, and those that a class is called for.
_WITHOUT_CALL = frozenset({"ObjectNode", "TypeNode"})
_CALLED = frozenset(
    {
        "sknoisy._net.net_state.StoredModule",
        "sknoisy._net.net_state.StoredTensor",
        "sknoisy._net.net_state.StoredType",
        "torch.device",
    }
)


def unpacked(content: bytes, own_types: frozenset[str]) -> bytes:
    """Return the archive without compression, if its members are whole and of bounded size.

    Parameters
    ----------
    content : bytes
        A zip archive in the format of skops.
    own_types : frozenset of str
        Types whose constructors a file may not call.

    Returns
    -------
    bytes

    Raises
    ------
    zipfile.BadZipFile, ValueError, KeyError
        If a checksum is wrong, or if it would be unpacked to more than 32 times its size (or
        16 MiB): as members, as arrays that members say they hold, or since members are used
        again and again.
    """
    limit = max(_ALWAYS_ALLOWED, _MOST_TIMES_LARGER * len(content))
    with zipfile.ZipFile(BytesIO(content)) as archive:
        members = archive.infolist()
        if len({member.filename for member in members}) < len(members):
            raise zipfile.BadZipFile("two members have the same name")
        _check_size(sum(member.file_size for member in members), limit)
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            content = _without_compression(archive)
        elif (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
    with zipfile.ZipFile(BytesIO(content)) as archive:
        _check_schema(archive, own_types, limit)
    return content


def _check_size(n_unpacked: int, limit: int) -> None:
    if n_unpacked > limit:
        raise zipfile.BadZipFile(
            f"it would unpack to {n_unpacked} bytes, and at most {limit} are plausible"
        )


def _without_compression(archive: zipfile.ZipFile) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as stored:
        for member in archive.infolist():
            with archive.open(member) as source, stored.open(member.filename, "w") as target:
                while part := source.read(_BYTES_AT_ONCE):  # the last one checks the sum
                    target.write(part)
    return buffer.getvalue()


def _check_schema(archive: zipfile.ZipFile, own_types: frozenset[str], limit: int) -> None:
    used = 0
    for node in _nodes(json.loads(archive.read("schema.json"))):
        name = f"{node.get('__module__')}.{node.get('__class__')}"
        if name in own_types and node["__loader__"] not in _WITHOUT_CALL and name not in _CALLED:
            raise ValueError(f"{name} comes as {node['__loader__']}")
        if isinstance(member := node.get("file"), str):
            used += archive.getinfo(member).file_size
            if node.get("type") == "numpy":
                with archive.open(member) as file:
                    _check_array(file, archive.getinfo(member).file_size)
            elif node.get("type") == "scipy":
                with archive.open(member) as file:
                    used += _check_arrays(file)
            _check_size(used, limit)


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects that the schema of an archive describes."""
    rest = [schema]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            rest += value.values()
            if "__loader__" in value:
                yield value
        elif isinstance(value, list):
            rest += value


def _check_arrays(file: IO[bytes]) -> int:
    """Check the arrays of a sparse matrix, an archive of its own; return their size."""
    with zipfile.ZipFile(file) as archive:
        size = sum(member.file_size for member in archive.infolist())
        for member in archive.infolist():
            with archive.open(member) as array:
                _check_array(array, member.file_size)
    return size


def _check_array(file: IO[bytes], size: int) -> None:
    """Refuse a file of an array whose header says another size than the file has."""
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = read(file)
    header = file.tell()
    if math.prod(shape) * max(1, dtype.itemsize) != size - header:
        raise ValueError(f"an array of shape {shape} and type {dtype} in {size - header} bytes")
