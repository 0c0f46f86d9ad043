"""Files that claim to be more than they are cost no memory: they are refused before."""

import io
import itertools
import json
import tracemalloc
import zipfile

import numpy as np
import pytest
import skops.io
from sklearn.datasets import make_blobs
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sknoisy import NoisyLabelClassifier, load_model, save_model

X, y = make_blobs(60, centers=2, random_state=0)


@pytest.fixture(scope="module")
def content():
    return skops.io.dumps(NoisyLabelClassifier(max_epochs=2, random_state=0).fit(X, y))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.skops"


IDS = itertools.count(-(10**9))  # skops takes what it has made under the same one


def members_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return buffer.getvalue()


def nodes(value):
    if isinstance(value, dict):
        if "__loader__" in value:
            yield value
        for child in value.values():
            yield from nodes(child)
    elif isinstance(value, list):
        for child in value:
            yield from nodes(child)


def header(shape, dtype="<f8"):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


def first_array(members):
    return next(name for name in members if name.endswith(".npy"))


def node(loader, module, name, content):
    return {
        "__class__": name,
        "__module__": module,
        "__loader__": loader,
        "content": content,
        "__id__": next(IDS),
    }


def number(value):
    return node("JsonNode", "builtins", "str", str(value)) | {"is_json": True}


def zeros_in_an_array(members, schema):
    members[first_array(members)] = header((2**23,)) + bytes(2**26)


def zeros_beside_the_arrays(members, schema):
    members["more"] = bytes(2**26)


def epochs_that_are_not_there(members, schema):
    for described in nodes(schema):
        content = described.get("content")
        if isinstance(content, dict) and "n_rows" in content:
            content["n_rows"] = number(10**8)


def epochs_without_columns(members, schema):
    for described in nodes(schema):
        content = described.get("content")
        if isinstance(content, dict) and "n_rows" in content:
            content["n_rows"] = number(10**8)
            content["columns"]["content"] = {}
            content["columns"]["key_types"]["content"] = []
            content["columns"]["__id__"] = content["columns"]["key_types"]["__id__"] = next(IDS)


def an_array_that_claims_more(members, schema):
    members[first_array(members)] = header((2**33,))


def an_array_of_nothing(members, schema):
    members[first_array(members)] = header((2**40,), "<U0")


def one_member_again_and_again(members, schema):
    members["large.npy"] = header((2**17,)) + bytes(2**20)
    array = next(node for node in nodes(schema) if node["__loader__"] == "NdArrayNode")
    copies = [{**array, "file": "large.npy", "__id__": i} for i in range(2000)]
    schema["content"]["content"]["more"] = {
        "__class__": "list",
        "__module__": "builtins",
        "__loader__": "ListNode",
        "content": copies,
        "__id__": -1,
    }


def a_layer_that_is_built(loader):
    def change(members, schema):
        sizes = [number(10**5), number(10**5)]
        if loader == "ConstructorFromReduceNode":
            sizes = node("TupleNode", "builtins", "tuple", sizes)
        module = "torch.nn.modules.linear"
        schema["content"]["content"]["more"] = node(loader, module, "Linear", sizes)

    return change


def a_table_that_is_built(members, schema):
    sizes = node("TupleNode", "builtins", "tuple", [number(10**5), number(10**5)])
    module = "torch.nn.modules.sparse"
    schema["content"]["content"]["more"] = node(
        "ConstructorFromReduceNode", module, "Embedding", sizes
    )


def a_sparse_matrix_of_zeros(members, schema):
    inner = packed({"data.npy": header((2**23,)) + bytes(2**26)}, zipfile.ZIP_DEFLATED)
    members["matrix.npz"] = inner
    schema["content"]["content"]["more"] = {
        "__class__": "csr_matrix",
        "__module__": "scipy.sparse._csr",
        "__loader__": "SparseMatrixNode",
        "type": "scipy",
        "file": "matrix.npz",
        "__id__": -1,
    }


CLAIMS = {
    "zeros in an array": zeros_in_an_array,
    "zeros beside the arrays": zeros_beside_the_arrays,
    "epochs": epochs_that_are_not_there,
    "epochs without columns": epochs_without_columns,
    "an array that claims more": an_array_that_claims_more,
    "an array of nothing": an_array_of_nothing,
    "one member again and again": one_member_again_and_again,
    "a layer that is built": a_layer_that_is_built("ConstructorFromReduceNode"),
    "a table that is built": a_table_that_is_built,
    "a layer of a list": a_layer_that_is_built("ListNode"),
    "a sparse matrix of zeros": a_sparse_matrix_of_zeros,
}


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("change", CLAIMS.values(), ids=CLAIMS)
def test_a_file_that_claims_much_takes_little(change, compression, content, path):
    members = members_of(content)
    schema = json.loads(members["schema.json"])
    change(members, schema)
    path.write_bytes(packed(members | {"schema.json": json.dumps(schema)}, compression))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"must be a whole file of `save_model`"):
            load_model(path)
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("said", [10, 10**6])
def test_a_member_that_unpacks_to_another_size_than_it_says_is_refused(said, content, path):
    members = members_of(content)
    members["more"] = bytes(2**26)
    damaged = bytearray(packed(members, zipfile.ZIP_DEFLATED))
    # The size stands in the directory at the end, 24 bytes after its entry begins.
    entry = damaged.rindex(b"PK\x01\x02", 0, damaged.rindex(b"more"))
    damaged[entry + 24 : entry + 28] = said.to_bytes(4, "little")
    path.write_bytes(damaged)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="must be a whole file"):
            load_model(path)
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()


def test_two_members_of_one_name_are_refused(content, path):
    path.write_bytes(content)
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(path, "a") as archive,
    ):
        archive.writestr("schema.json", "{}")
    with pytest.raises(ValueError, match="the same name"):
        load_model(path)


@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]
)
def test_compressed_files_of_skops_are_loaded(compression, path):
    """Much can be packed well: words, and noise layers that were hardly trained."""
    words = [f"word{i} also{i % 7}" for i in range(3000)]
    model = make_pipeline(
        TfidfVectorizer(),
        FunctionTransformer(accept_sparse=True),
        NoisyLabelClassifier(noise_model="c", max_epochs=1, transition_init="confusion"),
    )
    model.fit(words, np.arange(3000) % 5)
    skops.io.dump(model, path, compression=compression)
    trusted = skops.io.get_untrusted_types(file=path)
    np.testing.assert_array_equal(
        load_model(path, trusted=trusted).predict_proba(words[:9]), model.predict_proba(words[:9])
    )


def test_a_file_without_end_is_not_read(monkeypatch):
    class Endless(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            buffer[:] = bytes(len(buffer))
            self.n_read = getattr(self, "n_read", 0) + len(buffer)
            assert self.n_read < 2**20
            return len(buffer)

    monkeypatch.setattr("builtins.open", lambda *args, **kwargs: Endless())
    with pytest.raises(ValueError, match="must be a whole file"):
        load_model("/dev/zero")


def test_a_pipeline_is_checked_as_well(content, path):
    save_model(make_pipeline(StandardScaler(), NoisyLabelClassifier(max_epochs=1)).fit(X, y), path)
    members = members_of(path.read_bytes())
    schema = json.loads(members["schema.json"])
    epochs_that_are_not_there(members, schema)
    path.write_bytes(packed(members | {"schema.json": json.dumps(schema)}))
    with pytest.raises(ValueError, match="The history says that it has 100000000 rows"):
        load_model(path)
