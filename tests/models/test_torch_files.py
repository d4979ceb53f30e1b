"""Checkpoints of PyTorch, written here by hand: tensors come as they are, nothing else is called."""

from __future__ import annotations

import dataclasses
import pathlib
import pickle
import struct
import zipfile
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from rvis.models.weights import convert, torch_files

WRAPPERS = ("state_dict", "model")


@dataclasses.dataclass
class Ref:
    """A name."""

    name: str


@dataclasses.dataclass
class Call:
    """A function called with arguments, and the state that it is given then."""

    name: str
    args: tuple
    state: Any = None


@dataclasses.dataclass
class Outside:
    """What stands outside the pickle."""

    id: tuple


def pickled(value, top=True):
    """A small pickler, which writes calls of what is not installed."""
    out = pickled_value(value)
    return b"\x80\x02" + out + b"." if top else out


def pickled_value(value):
    def global_name(name):
        module, _, last = name.rpartition(".")
        return f"c{module}\n{last}\n".encode()

    match value:
        case Ref():
            return global_name(value.name)
        case Call():
            state = b"" if value.state is None else pickled_value(value.state) + b"b"
            return global_name(value.name) + pickled_value(value.args) + b"R" + state
        case Outside():
            return pickled_value(value.id) + b"Q"
        case dict():
            pairs = b"".join(pickled_value(k) + pickled_value(v) for k, v in value.items())
            return b"}(" + pairs + b"u"
        case tuple():
            return b"(" + b"".join(map(pickled_value, value)) + b"t"
        case list():
            return b"](" + b"".join(map(pickled_value, value)) + b"e"
        case _:
            return pickle.dumps(value, 2)[2:-1]


KINDS = {
    "Float": np.float32,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Double": np.float64,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
}


def tensor(shape, strides=None, *, offset=0, kind="Float", key="0", count=None, views=()):
    """A call as PyTorch writes it; by default of a contiguous tensor that fills its storage."""
    if strides is None:
        strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    count = int(np.prod(shape)) if count is None else count
    storage = Outside(("storage", Ref(f"torch.{kind}Storage"), key, "cpu", count, *views))
    hooks = Call("collections.OrderedDict", ())
    args = (storage, offset, shape, strides, False, hooks)
    return Call("torch._utils._rebuild_tensor_v2", args)


def checkpoint(path, state, storages, *, compression=zipfile.ZIP_STORED, order=None):
    """A zip with the pickle of `state` and the bytes of storages."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled(state))
        if order:
            archive.writestr("archive/byteorder", order)
        for key, array in storages.items():
            raw = array if isinstance(array, bytes) else array.tobytes()
            archive.writestr(f"archive/data/{key}", raw)
        archive.writestr("archive/version", "3\n")
    return path


def old_checkpoint(path, state, storages):
    """The format of PyTorch before 1.6: pickles one after another, then the numbers."""
    about = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"long": 4}}
    parts = [0x1950A86A20F9469CFC6C, 1001, about, state, list(storages)]
    content = b"".join(map(pickled, parts))
    for array in storages.values():
        content += struct.pack("<q", array.size) + array.tobytes()
    path.write_bytes(content)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.pth"


NUMBERS = np.arange(12, dtype=np.float32)


@pytest.mark.parametrize("write", [checkpoint, old_checkpoint])
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_come_as_they_are(kind, write, path):
    numbers = np.array([0, 1, 0, 100, 3, 7]).astype(KINDS[kind])
    state = {"a.weight": tensor((2, 3), kind=kind), "epoch": 3}
    found = torch_files.read(write(path, state, {"0": numbers}), WRAPPERS)
    assert list(found) == ["a.weight"] and found["a.weight"].dtype == KINDS[kind]
    np.testing.assert_array_equal(found["a.weight"], numbers.reshape(2, 3))


@pytest.mark.parametrize("write", [checkpoint, old_checkpoint])
def test_views_and_shared_storages(write, path):
    state = {
        "turned": tensor((3, 4), (1, 3), count=12),
        "row": tensor((4,), (1,), offset=4, count=12),
        "every_third": tensor((4,), (3,), offset=2, count=12),
        "same_everywhere": tensor((2, 3), (0, 0), offset=5, count=12),
        "scalar": tensor((), (), offset=11, count=12),
        "empty": tensor((0, 4), (4, 1), count=12),
    }
    found = torch_files.read(write(path, state, {"0": NUMBERS}), WRAPPERS)
    np.testing.assert_array_equal(found["turned"], NUMBERS.reshape(4, 3).T)
    np.testing.assert_array_equal(found["row"], NUMBERS[4:8])
    np.testing.assert_array_equal(found["every_third"], NUMBERS[2::3])
    np.testing.assert_array_equal(found["same_everywhere"], np.full((2, 3), 5))
    assert found["scalar"] == 11 and found["empty"].shape == (0, 4)


def test_views_of_an_old_file_start_where_they_say(path):
    state = {"a": tensor((3,), key="0", count=12, views=(("1", 6, 3),))}
    found = torch_files.read(old_checkpoint(path, state, {"0": NUMBERS}), WRAPPERS)
    np.testing.assert_array_equal(found["a"], [6, 7, 8])


def test_parameters_dtypes_and_untyped_storages(path):
    storage = Outside(("storage", Ref("torch.storage.UntypedStorage"), "0", "cpu", 48))
    args = (storage, 2, (3,), (2,), False, Call("collections.OrderedDict", ()))
    untyped = Call("torch._utils._rebuild_tensor_v3", (*args, Ref("torch.float32"), None))
    parameter = Call("torch._utils._rebuild_parameter", (tensor((12,), key="1"), True, ()))
    state = {"untyped": untyped, "parameter": parameter}
    found = torch_files.read(checkpoint(path, state, {"0": NUMBERS, "1": NUMBERS}), WRAPPERS)
    np.testing.assert_array_equal(found["untyped"], [2, 4, 6])
    np.testing.assert_array_equal(found["parameter"], NUMBERS)


def test_big_endian_machines_files_are_turned_round(path):
    state = {"a": tensor((12,))}
    file = checkpoint(path, state, {"0": NUMBERS.astype(">f4")}, order="big")
    np.testing.assert_array_equal(torch_files.read(file, WRAPPERS)["a"], NUMBERS)


def test_state_dicts_are_unwrapped_and_their_versions_left_out(path):
    about = {"_metadata": {"": {"version": 1}}}
    inner = Call("collections.OrderedDict", ([("a", tensor((12,)))],), about)
    state = {"epoch": 7, "state_dict": {"model": inner}, "optimizer": {"m": tensor((99,), key="7")}}
    file = checkpoint(path, state, {"0": NUMBERS})
    assert list(torch_files.read(file, WRAPPERS)) == ["a"]
    np.testing.assert_array_equal(convert.read_state_dict(file)[0]["a"], NUMBERS)


@pytest.mark.parametrize("write", [checkpoint, old_checkpoint])
@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "posix.system",
        "builtins.eval",
        "__builtin__.open",
        "subprocess.Popen",
        "torch.load",
        "torch.nn.modules.linear.Linear",
        "numpy.core.multiarray.scalar",
        "argparse.Namespace",
        "pathlib.PosixPath",
    ],
)
def test_everything_else_is_refused_by_its_name_and_not_called(name, write, path, tmp_path):
    payload = Call(name, (f"touch '{tmp_path}/ran'",))
    file = write(path, {"a": tensor((12,)), "best": payload}, {"0": NUMBERS})
    with pytest.raises(ValueError, match=f"(?s)path: .*{file}.*{name}"):
        convert.read_state_dict(file)
    assert not (tmp_path / "ran").exists()


class Touch:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        import os

        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_python_s_own_pickles_of_a_payload_are_refused(protocol, path, tmp_path):
    with zipfile.ZipFile(path, "w") as archive:
        payload = pickle.dumps({"a": Touch(f"touch '{tmp_path}/ran'")}, protocol)
        archive.writestr("archive/data.pkl", payload)
    with pytest.raises(ValueError, match=r"posix\.system"):
        convert.read_state_dict(path)
    assert not (tmp_path / "ran").exists()


FORGED = {
    "reaches outside": tensor((13,), count=12),
    "negative": tensor((2,), (-1,), offset=3, count=12),
    "outside by its offset": tensor((4,), (1,), offset=9, count=12),
    "outside by its stride": tensor((4,), (4,), count=12),
    "far too large": tensor((10**6, 10**6), (0, 0), count=12),
    "storage too large": tensor((13,), count=13),
    "storage too small": tensor((11,), count=11),
    "no whole number": tensor((2.0,), (1,), count=12),
    "too few strides": tensor((2, 2), (1,), count=12),
    "no such storage": tensor((12,), key="7"),
    "a path as a key": tensor((12,), key="../version"),
    "kind of storage": tensor((12,), kind="Complex"),
    "a name that is called": Call("torch.FloatStorage", (12,)),
    "arguments missing": Call("torch._utils._rebuild_tensor_v2", (1,)),
    "a key that is a tuple": {((1, 2), 3): 4},
}


@pytest.mark.parametrize("write", [checkpoint, old_checkpoint])
@pytest.mark.parametrize("forged", FORGED)
def test_forged_tensors_are_refused(forged, write, path):
    file = write(path, {"a": FORGED[forged]}, {"0": NUMBERS})
    with pytest.raises(ValueError, match="path: "):
        convert.read_state_dict(file)


@pytest.mark.parametrize("write", [checkpoint, old_checkpoint])
@pytest.mark.parametrize("part", [0, 1, 3, 20, 0.3, 0.6, 0.9, 0.999])
def test_cut_short_files_are_refused(part, write, path):
    whole = write(path, {"a": tensor((12,))}, {"0": NUMBERS}).read_bytes()
    path.write_bytes(whole[: part if part >= 1 else int(part * len(whole))])
    with pytest.raises(ValueError, match="path: "):
        convert.read_state_dict(path)


def test_a_bit_that_fell_over_is_noticed(path):
    whole = bytearray(checkpoint(path, {"a": tensor((12,))}, {"0": NUMBERS}).read_bytes())
    at = bytes(whole).index(NUMBERS.tobytes())
    whole[at + 5] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"CRC|damaged"):
        convert.read_state_dict(path)


def test_compressed_entries_are_refused(path):
    numbers = np.zeros(10**6, np.float32)
    file = checkpoint(
        path, {"a": tensor((10**6,))}, {"0": numbers}, compression=zipfile.ZIP_DEFLATED
    )
    with pytest.raises(ValueError, match="compressed"):
        convert.read_state_dict(file)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02r\xff\xff\xff\x7f.",  # a place in the memo that would take gigabytes
        b"\x80\x02" + b"(" * 10**5 + b".",
        b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b".",
        b"\x80\x02X\xff\xff\xff\xffabc.",
        b"\x80\x02" + pickle.dumps(list(range(9)), 2)[2:],
    ],
)
def test_strange_pickles_are_refused(content, path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    with pytest.raises(ValueError, match="path: "):
        convert.read_state_dict(path)


def test_numpy_s_pickles_come_under_their_paths(tmp_path):
    arrays = {
        "kernel": np.arange(6.0).reshape(2, 3),
        "bias": np.asfortranarray(np.ones((2, 2), "f2")),
    }
    for protocol in range(6):
        file = tmp_path / f"{protocol}.ckpt"
        file.write_bytes(pickle.dumps({"Net_0": {"Conv_0": arrays}}, protocol))
        found = torch_files.read_arrays(file)
        assert set(found) == {"Net_0/Conv_0/kernel", "Net_0/Conv_0/bias"}
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[f"Net_0/Conv_0/{name}"], array)


def test_numpy_s_pickles_of_anything_else_are_refused(tmp_path):
    file = tmp_path / "a.ckpt"
    for held in ({"a": np.array([Touch("true")], object)}, {"a": Touch("true")}, {"a": 3}, [1]):
        file.write_bytes(pickle.dumps(held))
        with pytest.raises(ValueError, match="."):
            torch_files.read_arrays(file)


def test_twenty_state_dicts_are_read_as_pytorch_reads_them(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is of the bench extra")
    generator = torch.Generator().manual_seed(0)
    kinds = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.float64]
    for i in range(20):
        whole = torch.randn(7, 5, 4, generator=generator).mul(50).to(kinds[i % 5])
        views = {"whole": whole, "turned": whole.permute(2, 0, 1), "part": whole[1:4, ::2, 1]}
        state = {**views, "wide": whole[0, 0].expand(3, 4), "one": whole[0, 0, 0]}
        state["parameter"] = torch.nn.Parameter(whole.float())
        file: pathlib.Path = tmp_path / f"{i}.pt"
        torch.save(state, file, _use_new_zipfile_serialization=i % 2 == 0)
        theirs = torch.load(file, weights_only=True)
        ours = torch_files.read(file, WRAPPERS)
        assert list(ours) == list(theirs)
        for name, array in ours.items():
            expected = theirs[name].detach()
            assert str(array.dtype) == str(expected.dtype).removeprefix("torch.")
            np.testing.assert_array_equal(array.astype(np.float64), expected.double().numpy())
