"""Tiny sets written here in each format read back exactly; whatever is wrong with one is named."""

from __future__ import annotations

import gzip
import io
import os
import pathlib
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from rvis import data

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data"


def encoded(colour: Any, mode: str = "RGB", size: tuple[int, int] = (6, 4), **save: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, save.pop("format", "PNG"), **save)
    return buffer.getvalue()


RED, BLUE, GREY = encoded("red"), encoded("blue"), encoded(99, "L")
TREE = {
    "train/dog/b.png": RED,
    "train/dog/a.png": BLUE,
    "train/cat/z.PNG": BLUE,
    "test/cat/1.png": RED,
}


def write_folder(folder: pathlib.Path, tree: Mapping[str, bytes]) -> pathlib.Path:
    for name, content in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_zip(folder: pathlib.Path, tree: Mapping[str, bytes]) -> pathlib.Path:
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return folder / "set.zip"


# Dataset


def dataset(**changed: Any) -> data.Dataset:
    images = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3)
    fields = {"images": images, "labels": np.array([0, 1, 1, 0], np.int32)}
    return data.Dataset(**{**fields, "classes": ("a", "b"), "name": "tiny", **changed})


def test_length_is_the_number_of_images() -> None:
    assert len(dataset()) == 4


@pytest.mark.parametrize("indices", [[2, 0], np.array([2, 0]), slice(2, None, -2)])
def test_take_keeps_the_order_asked_for(indices: Any) -> None:
    taken = dataset().take(indices)
    np.testing.assert_array_equal(taken.images, dataset().images[[2, 0]])
    assert taken.labels.tolist() == [1, 0]
    assert (taken.classes, taken.name) == (("a", "b"), "tiny")


@pytest.mark.parametrize("indices", [[], slice(0, 0)])
def test_take_of_nothing_is_empty(indices: Any) -> None:
    assert dataset().take(indices).images.shape == (0, 2, 2, 3)


@pytest.mark.parametrize(
    ("indices", "error", "words"),
    [
        ([4], ValueError, "indices: 0 to 3 .* given 4"),
        ([-1], ValueError, "indices: .* given -1"),
        (1, ValueError, "indices: .* given 1"),
        ([0.5], TypeError, "indices: integers"),
        ([True, False, True, False], TypeError, "indices: integers"),
    ],
)
def test_take_refuses(indices: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        dataset().take(indices)


def test_floats_divide_by_255() -> None:
    images = np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1)
    floats = dataset(images=images, labels=np.zeros(3, np.int32)).floats()
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(floats.ravel(), np.array([0, 0.2, 1], np.float32))


def test_floats_of_some() -> None:
    np.testing.assert_array_equal(dataset().floats([3]), dataset().floats()[3:])


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"images": np.zeros((4, 2, 2, 3), np.float32)}, TypeError, "images: .*uint8.*float32"),
        ({"images": [[1]]}, TypeError, "images: .*uint8.*list"),
        ({"images": np.zeros((4, 2, 2), np.uint8)}, ValueError, r"images: .*\(4, 2, 2\)"),
        ({"images": np.zeros((4, 2, 2, 2), np.uint8)}, ValueError, r"images: .*\(4, 2, 2, 2\)"),
        ({"labels": np.zeros(4, np.int64)}, TypeError, "labels: .*int32.*int64"),
        ({"labels": np.zeros(3, np.int32)}, ValueError, r"labels: .*\(4,\).*\(3,\)"),
        ({"labels": np.array([0, 1, 2, 0], np.int32)}, ValueError, "labels: 0 to 1 .* given 2"),
        ({"labels": np.array([0, -1, 1, 0], np.int32)}, ValueError, "labels: .* given -1"),
        ({"classes": ["a", "b"]}, TypeError, "classes: a (tuple|str)"),
        ({"classes": ("a", 1)}, TypeError, "classes: a (tuple|str)"),
        ({"name": None}, TypeError, "name: .* None"),
    ],
)
def test_dataset_refuses(changed: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        dataset(**changed)


# Image folders and zips

WRITERS = pytest.mark.parametrize("write", [write_folder, write_zip])
Writer = Callable[[pathlib.Path, Mapping[str, bytes]], pathlib.Path]


@WRITERS
@pytest.mark.parametrize("top", ["", "pets/"])
def test_tree_is_sorted_by_class_then_name(tmp_path: pathlib.Path, write: Writer, top: str) -> None:
    ds = data.load(write(tmp_path, {top + name: file for name, file in TREE.items()}))
    assert ds.classes == ("cat", "dog")
    assert ds.labels.tolist() == [0, 1, 1]
    blue, red = [0, 0, 255], [255, 0, 0]
    assert ds.images[:, 0, 0].tolist() == [blue, blue, red]


@WRITERS
def test_tree_passes_over_what_is_no_picture(tmp_path: pathlib.Path, write: Writer) -> None:
    litter = ("__MACOSX/train/cat/._z.png", "train/.DS_Store", "train/cat/.a.png", "readme.txt")
    ds = data.load(write(tmp_path, {**TREE, **dict.fromkeys(litter, b"litter")}))
    assert len(ds) == 3


def test_name_is_the_folders_or_archives(tmp_path: pathlib.Path) -> None:
    assert data.load(write_zip(tmp_path, TREE)).name == "set"
    assert data.load(write_folder(tmp_path / "v1.5", TREE)).name == "v1.5"


def test_an_archive_is_known_by_content_not_name(tmp_path: pathlib.Path) -> None:
    assert len(data.load(write_zip(tmp_path, TREE).rename(tmp_path / "set.bin"))) == 3


def test_labels_are_the_same_numbers_in_a_split_that_lacks_a_class(tmp_path: pathlib.Path) -> None:
    tree = {"train/a/1.png": RED, "train/b/1.png": RED, "test/b/1.png": RED}
    ds = data.load(write_folder(tmp_path, tree), "test")
    assert (ds.classes, ds.labels.tolist()) == (("a", "b"), [1])


@pytest.mark.parametrize(
    ("there", "asked", "given"),
    [
        ("test", "val", "test"),
        ("val", "test", "val"),
        ("validation", "valid", "validation"),
        ("valid", "test", "valid"),
        ("test val", "val", "val"),
        ("test val", "test", "test"),
        ("test val", "validation", "val"),
        ("extra", "extra", "extra"),
    ],
)
def test_split_synonyms(tmp_path: pathlib.Path, there: str, asked: str, given: str) -> None:
    tree = {f"{split}/a/1.png": encoded((i, 0, 0)) for i, split in enumerate(there.split())}
    ds = data.load(write_folder(tmp_path, tree), asked)
    assert ds.images[0, 0, 0, 0] == there.split().index(given)


def test_a_missing_split_names_those_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"split: there is no 'dev'.*'test', 'train'"):
        data.load(write_folder(tmp_path, TREE), "dev")


def test_all_grey_stays_grey(tmp_path: pathlib.Path) -> None:
    ds = data.load(write_folder(tmp_path, {"train/a/1.png": GREY, "train/a/2.png": GREY}))
    assert ds.images.shape == (2, 4, 6, 1)
    assert (ds.images == 99).all()


@pytest.mark.parametrize(("name", "kind"), [("b.tif", "TIFF"), ("b.GIF", "GIF"), ("b.pgm", "PPM")])
def test_other_kinds_beside_jpegs_are_read(tmp_path: pathlib.Path, name: str, kind: str) -> None:
    tree = {"train/cat/a.jpg": encoded("red", format="JPEG")}
    tree[f"train/cat/{name}"] = encoded(99, "L", format=kind)
    assert len(data.load(write_folder(tmp_path, tree))) == 2


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_a_kind_that_is_not_read_is_named(tmp_path: pathlib.Path, write: Writer) -> None:
    with pytest.raises(ValueError, match=r"path: pictures in \.jpg.* given train/cat/b\.HEIC"):
        data.load(write(tmp_path, {**TREE, "train/cat/b.HEIC": b"x"}))


# Bombs


def bombs(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Files of a few hundred kilobytes at most whose headers promise far more."""
    zeros = bytes(2**20)
    many = folder / "set.zip"
    with zipfile.ZipFile(many, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("train/cat/1.png", "w") as opened:
            for _ in range(80):
                opened.write(zeros)
    forged = folder / "idx"
    forged.mkdir()
    for kind, rank in (("images-idx3", 3), ("labels-idx1", 1)):
        header = bytes((0, 0, 8, rank)) + struct.pack(f">{rank}I", *[2**31] * rank)
        (forged / f"train-{kind}-ubyte.gz").write_bytes(gzip.compress(header + zeros))
    tar = folder / "cifar.tar.gz"
    with tarfile.open(tar, "w:gz") as archive:
        for i in range(80):
            entry = tarfile.TarInfo(f"other{i}")
            entry.size = len(zeros)
            archive.addfile(entry, io.BytesIO(zeros))
    return {"zip": many, "idx": forged, "tar": tar}


@pytest.mark.parametrize("kind", ["zip", "idx", "tar"])
def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(ValueError, match="path: .* would unpack to .* at most .* were expected"):
        data.load(bombs(tmp_path)[kind])


@pytest.mark.parametrize("order", [(RED, GREY), (GREY, RED), (GREY, RED, GREY)])
def test_grey_among_colours_becomes_rgb(tmp_path: pathlib.Path, order: tuple[bytes, ...]) -> None:
    tree = {f"train/a/{i}.png": content for i, content in enumerate(order)}
    pixels = data.load(write_folder(tmp_path, tree)).images[:, 0, 0]
    assert pixels.tolist() == [[255, 0, 0] if file is RED else [99] * 3 for file in order]


def test_differing_sizes_ask_for_size(tmp_path: pathlib.Path) -> None:
    tree = {"train/a/1.png": RED, "train/a/2.png": encoded("red", size=(6, 6))}
    with pytest.raises(ValueError, match=r"size: .*\(4, 6\) and then \(6, 6\) .*2\.png.*size="):
        data.load(write_folder(tmp_path, tree))


@pytest.mark.parametrize(("size", "shape"), [(3, (3, 3)), ((2, 5), (2, 5)), ([2, 5], (2, 5))])
def test_size_brings_all_to_one(tmp_path: pathlib.Path, size: Any, shape: tuple[int, int]) -> None:
    tree = {"train/a/1.png": RED, "train/a/2.png": encoded("red", size=(6, 6))}
    ds = data.load(write_folder(tmp_path, tree), size=size)
    assert ds.images.shape == (2, *shape, 3)


def test_size_cuts_at_the_centre(tmp_path: pathlib.Path) -> None:
    pixels = np.zeros((4, 12), np.uint8)
    pixels[:, 4:8] = 200
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    ds = data.load(write_folder(tmp_path, {"train/a/1.png": buffer.getvalue()}), size=4)
    assert (ds.images == 200).all()


@pytest.mark.parametrize(
    ("size", "error"),
    [(0, ValueError), ((4, 0), ValueError), ((1, 2, 3), ValueError), (4.5, ValueError)],
)
def test_size_is_refused(tmp_path: pathlib.Path, size: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"size: "):
        data.load(write_folder(tmp_path, TREE), size=size)


@WRITERS
@pytest.mark.parametrize("stray", ["cat/1.png", "1.png", "train/a/b/c/1.png"])
def test_another_layout_is_refused(tmp_path: pathlib.Path, write: Writer, stray: str) -> None:
    for tree in ({stray: RED}, {**TREE, stray: RED}):
        folder = tmp_path / str(len(tree))
        folder.mkdir()
        with pytest.raises(ValueError, match=f"path: .*SPLIT/CLASS/NAME.*given {stray}"):
            data.load(write(folder, tree))


DAMAGED = {
    "cut short": encoded("red", size=(64, 64), format="JPEG")[:-200],
    "no image": b"hello",
    "empty": b"",
    "broken PNG": RED[:30] + b"????" + RED[34:],
}


@WRITERS
@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_image_is_named(tmp_path: pathlib.Path, write: Writer, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"path: train/cat/bad\.jpg in .*"):
        data.load(write(tmp_path, {**TREE, "train/cat/bad.jpg": content}))


@WRITERS
def test_an_image_beyond_pillows_limit_is_named(
    tmp_path: pathlib.Path, write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match=r"path: train/cat/z\.PNG in .* too large"):
        data.load(write(tmp_path, TREE))


def test_a_damaged_zip_entry_is_named(tmp_path: pathlib.Path) -> None:
    path = write_zip(tmp_path, TREE)
    path.write_bytes(path.read_bytes().replace(RED, RED[:-1] + b"!", 1))
    with pytest.raises(ValueError, match=r"path: train/dog/b\.png in .*CRC"):
        data.load(path)


def test_a_zip_cut_short_is_told_so(tmp_path: pathlib.Path) -> None:
    path = write_zip(tmp_path, TREE)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"path: .*set\.zip.*cut short"):
        data.load(path)


def test_a_zip_with_a_damaged_directory_is_told_so(tmp_path: pathlib.Path) -> None:
    path = write_zip(tmp_path, TREE)
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK??"))
    with pytest.raises(ValueError, match=r"path: .*set\.zip is damaged"):
        data.load(path)


@pytest.mark.parametrize("tree", [{}, {"notes.txt": b"x"}])
def test_a_folder_of_something_else_names_the_formats(
    tmp_path: pathlib.Path, tree: dict[str, bytes]
) -> None:
    with pytest.raises(ValueError, match=r"path: a folder with MNIST.*CIFAR.*SPLIT/CLASS/NAME"):
        data.load(write_folder(tmp_path, tree))


def test_a_file_of_something_else_names_the_formats(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"path: a folder with MNIST.*a\.txt"):
        data.load(tmp_path / "a.txt")


@pytest.mark.parametrize("reader", [data.load, data.read_image])
def test_a_missing_path_is_named(tmp_path: pathlib.Path, reader: Callable[..., Any]) -> None:
    with pytest.raises(FileNotFoundError, match=r"path: .*gone"):
        reader(tmp_path / "gone")


@pytest.mark.parametrize("reader", [data.load, data.read_image])
def test_what_is_no_path_is_named(reader: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"path: .* given 3"):
        reader(3)


# IDX


def idx(array: np.ndarray, code: int = 8) -> bytes:
    return (
        bytes((0, 0, code, array.ndim))
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


DIGITS = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
MNIST = {IMAGES: idx(DIGITS), LABELS: idx(np.array([7, 0], np.uint8))}


@pytest.mark.parametrize("packed", [False, True])
def test_idx_reads_back(tmp_path: pathlib.Path, packed: bool) -> None:
    tree = {f"{k}.gz": gzip.compress(v) for k, v in MNIST.items()} if packed else MNIST
    ds = data.load(write_folder(tmp_path, tree))
    np.testing.assert_array_equal(ds.images[..., 0], DIGITS)
    assert ds.labels.tolist() == [7, 0]
    assert ds.classes == tuple("0123456789")


@pytest.mark.parametrize("split", ["test", "val"])
def test_idx_test_split_is_t10k(tmp_path: pathlib.Path, split: str) -> None:
    test = {name.replace("train", "t10k"): file for name, file in MNIST.items()}
    train = {**MNIST, IMAGES: idx(DIGITS + 1)}
    ds = data.load(write_folder(tmp_path, {**train, **test}), split)
    np.testing.assert_array_equal(ds.images[..., 0], DIGITS)


def test_idx_labels_beyond_nine_make_more_classes(tmp_path: pathlib.Path) -> None:
    tree = {**MNIST, LABELS: idx(np.array([7, 25], np.uint8))}
    assert data.load(write_folder(tmp_path, tree)).classes[-1] == "25"


def test_idx_is_resized(tmp_path: pathlib.Path) -> None:
    tree = {**MNIST, IMAGES: idx(np.full((2, 3, 4), 80, np.uint8))}
    ds = data.load(write_folder(tmp_path, tree), size=5)
    np.testing.assert_array_equal(ds.images, np.full((2, 5, 5, 1), 80))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({IMAGES: MNIST[IMAGES][:-1]}, f"{IMAGES} should have 24 bytes .* given 23"),
        ({IMAGES: MNIST[IMAGES] + b"x"}, f"{IMAGES} should have 24 bytes .* given more"),
        ({IMAGES: b""}, f"IDX file .*{IMAGES}"),
        ({IMAGES: MNIST[LABELS]}, f"3 dimensions .*{IMAGES} .00000801"),
        ({LABELS: MNIST[IMAGES]}, f"1 dimensions .*{LABELS} .00000803"),
        ({IMAGES: idx(DIGITS, code=13)}, f"IDX file of bytes .*{IMAGES} .00000d03"),
        ({LABELS: idx(np.zeros(3, np.uint8))}, "2 train images but 3 labels"),
        ({IMAGES: gzip.compress(MNIST[IMAGES])[:-9]}, f"{IMAGES} is a damaged or cut short .gz"),
        ({IMAGES: b"\x1f\x8bnothing"}, f"{IMAGES} is a damaged or cut short .gz"),
    ],
)
def test_idx_names_the_damaged_file(
    tmp_path: pathlib.Path, changed: dict[str, bytes], words: str
) -> None:
    with pytest.raises(ValueError, match=f"path: .*{words}"):
        data.load(write_folder(tmp_path, {**MNIST, **changed}))


def test_idx_names_the_missing_file(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=f"path: {LABELS} .*missing"):
        data.load(write_folder(tmp_path, {IMAGES: MNIST[IMAGES]}))


def test_idx_names_the_splits_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"split: there is no 'test' .* one of 'train'"):
        data.load(write_folder(tmp_path, MNIST), "test")


# CIFAR

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)


def batch(rows: slice, key: str, protocol: int = 2) -> bytes:
    """A batch as CIFAR keeps it: colour planes after one another, each row by row."""
    flat = np.ascontiguousarray(PIXELS[rows].transpose(0, 3, 1, 2).reshape(-1, 3072))
    labels = [i % 3 for i in range(12)][rows]
    return pickle.dumps({"data": flat, key: labels, "batch_label": "x"}, protocol)


def python2_batch(flat: np.ndarray, labels: list[int]) -> bytes:
    """What Python 2 wrote: the array's bytes and all names are its 8-bit strings."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    )
    shape = b"".join(b"M" + struct.pack("<H", extent) for extent in flat.shape) + b"\x86"
    array += b"(K\x01" + shape + dtype + b"\x89" + text(flat.tobytes()) + b"tb"
    listed = b"](" + b"".join(b"K" + bytes((label,)) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + listed + b"u."


def cifar10(protocol: int = 2) -> dict[str, bytes]:
    tree = {
        f"data_batch_{i + 1}": batch(slice(2 * i, 2 * i + 2), "labels", protocol) for i in range(5)
    }
    tree["test_batch"] = batch(slice(10, 12), "labels", protocol)
    tree["batches.meta"] = pickle.dumps({"label_names": ["ant", "bee", "cow"]}, protocol)
    return tree


def write_tar(folder: pathlib.Path, tree: Mapping[str, bytes]) -> pathlib.Path:
    path = folder / "cifar.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in tree.items():
            member = tarfile.TarInfo(f"cifar-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("write", [write_folder, write_tar])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_cifar10_reads_back(tmp_path: pathlib.Path, write: Writer, protocol: int) -> None:
    path = write(tmp_path, cifar10(protocol))
    train, test = data.load(path, "train"), data.load(path, "val")
    np.testing.assert_array_equal(np.concatenate([train.images, test.images]), PIXELS)
    assert np.concatenate([train.labels, test.labels]).tolist() == [0, 1, 2] * 4
    assert train.classes == ("ant", "bee", "cow")


def test_cifar10_reads_what_python_2_wrote(tmp_path: pathlib.Path) -> None:
    flat = PIXELS[:2].transpose(0, 3, 1, 2).reshape(2, 3072)
    tree = {**cifar10(), "test_batch": python2_batch(flat, [2, 0])}
    ds = data.load(write_folder(tmp_path, tree), "test")
    np.testing.assert_array_equal(ds.images, PIXELS[:2])
    assert ds.labels.tolist() == [2, 0]


def test_cifar_reads_arrays_by_columns_and_wide_labels(tmp_path: pathlib.Path) -> None:
    flat = PIXELS[:2].transpose(0, 3, 1, 2).reshape(2, 3072)
    odd = {"data": np.asfortranarray(flat), "labels": np.array([2, 1], ">i8")}
    tree = {**cifar10(), "test_batch": pickle.dumps(odd, 2)}
    ds = data.load(write_folder(tmp_path, tree), "test")
    np.testing.assert_array_equal(ds.images, PIXELS[:2])
    assert ds.labels.tolist() == [2, 1]


@pytest.mark.parametrize("write", [write_folder, write_tar])
def test_cifar100_gets_its_fine_labels(tmp_path: pathlib.Path, write: Writer) -> None:
    tree = {
        "train": batch(slice(0, 10), "fine_labels"),
        "test": batch(slice(10, 12), "fine_labels"),
        "meta": pickle.dumps({"fine_label_names": ["a", "b", "c"], "coarse_label_names": ["x"]}),
    }
    ds = data.load(write(tmp_path, tree), "test")
    np.testing.assert_array_equal(ds.images, PIXELS[10:])
    assert (ds.labels.tolist(), ds.classes) == ([1, 2], ("a", "b", "c"))


class Hostile:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "function",
    [os.mkdir, exec, eval, getattr, np.load, np.fromfile, pickle.loads],
    ids=lambda function: function.__name__,
)
def test_a_hostile_pickle_is_refused_and_not_run(
    tmp_path: pathlib.Path, function: Callable[..., Any], protocol: int
) -> None:
    sign = tmp_path / "run"
    argument = f"import os; os.mkdir({str(sign)!r})" if function is exec else str(sign)
    hostile = pickle.dumps({"data": Hostile(function, argument)}, protocol)
    path = write_folder(tmp_path / "set", {**cifar10(), "data_batch_3": hostile})
    with pytest.raises(
        ValueError, match=rf"data_batch_3 .*{function.__name__}.*none of it was run"
    ):
        data.load(path)
    assert not sign.exists()


@pytest.mark.parametrize("dtype", ["O", "V8", "M8[s]"])
def test_an_array_of_anything_but_numbers_is_refused(tmp_path: pathlib.Path, dtype: str) -> None:
    hostile = pickle.dumps({"data": np.zeros((2, 3072), dtype), "labels": [0, 1]}, 2)
    with pytest.raises(ValueError, match=r"test_batch in .*none of it was run"):
        data.load(write_folder(tmp_path, {**cifar10(), "test_batch": hostile}), "test")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "none of it was run"),
        (b"hello", "none of it was run"),
        (batch(slice(10, 12), "labels")[:-100], "none of it was run"),
        (pickle.dumps([1, 2]), "holds a list"),
        (pickle.dumps({"labels": [0, 1]}), "'data'"),
        (pickle.dumps({"data": np.zeros((2, 3071), np.uint8), "labels": [0, 1]}), "'data'"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.int64), "labels": [0, 1]}), "'data'"),
        (batch(slice(10, 12), "wrong_key"), "'labels' in test_batch"),
        (
            pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}),
            "'labels' in test_batch .* not 2 numbers from 0 to 2",
        ),
        (
            pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 2**32]}),
            "'labels' in test_batch .* not 2 numbers from 0 to 2",
        ),
    ],
)
def test_a_damaged_batch_is_named(tmp_path: pathlib.Path, content: bytes, words: str) -> None:
    tree = {**cifar10(), "test_batch": content}
    with pytest.raises(ValueError, match=f"path: .*{words}") as caught:
        data.load(write_folder(tmp_path, tree), "test")
    assert "test_batch in" in str(caught.value)


@pytest.mark.parametrize("missing", ["data_batch_4", "batches.meta"])
def test_a_missing_batch_is_named(tmp_path: pathlib.Path, missing: str) -> None:
    tree = {name: content for name, content in cifar10().items() if name != missing}
    with pytest.raises(ValueError, match=f"path: {missing} missing"):
        data.load(write_folder(tmp_path, tree))


def test_cifar_names_the_splits_there(tmp_path: pathlib.Path) -> None:
    tree = {name: content for name, content in cifar10().items() if name != "test_batch"}
    with pytest.raises(ValueError, match=r"split: there is no 'test' .* one of 'train'"):
        data.load(write_folder(tmp_path, tree), "test")


def test_a_tar_cut_short_is_told_so(tmp_path: pathlib.Path) -> None:
    path = write_tar(tmp_path, cifar10())
    path.write_bytes(path.read_bytes()[: -len(path.read_bytes()) // 2])
    with pytest.raises(ValueError, match=r"path: .*cifar\.tar\.gz is damaged or cut short"):
        data.load(path)


# One picture


def read(folder: pathlib.Path, content: bytes, **options: Any) -> np.ndarray:
    (folder / "picture").write_bytes(content)
    return data.read_image(folder / "picture", **options)


def png16(value: int) -> bytes:
    """A grey PNG of one 16-bit pixel, spelt out, since it tests how such a file is read."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(">H", value)))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "pixel"),
    [
        (encoded((255, 51, 0)), (1, 0.2, 0)),
        (encoded(51, "L"), (0.2,) * 3),
        (encoded(1, "1"), (1,) * 3),
        (encoded((255, 0, 0, 0), "RGBA"), (128 / 255,) * 3),
        (encoded((255, 51, 0, 255), "RGBA"), (1, 0.2, 0)),
        (encoded((0, 0), "LA"), (128 / 255,) * 3),
        (encoded("red", "P", transparency=0), (128 / 255,) * 3),
        (encoded((255, 0, 0), transparency=(255, 0, 0)), (128 / 255,) * 3),
        (encoded((0, 0, 0, 0), "CMYK", format="JPEG"), (1,) * 3),
        (encoded((255, 51, 0), format="BMP"), (1, 0.2, 0)),
        (encoded((255, 51, 0), format="PPM"), (1, 0.2, 0)),
        (encoded((255, 51, 0), format="WEBP", lossless=True), (1, 0.2, 0)),
        (png16(0), (0,) * 3),
        (png16(51 * 257), (0.2,) * 3),
        (png16(65535), (1,) * 3),
    ],
)
def test_read_image_gives_rgb_in_0_1(
    tmp_path: pathlib.Path, content: bytes, pixel: tuple[float, ...]
) -> None:
    image = read(tmp_path, content)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, np.broadcast_to(pixel, image.shape), atol=1e-6)


def tiff(values: Any) -> bytes:
    """A grey TIFF of an array of numbers, as Pillow writes it."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(values)).save(buffer, "TIFF")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "row"),
    [
        (tiff(np.asarray([[0, 51 * 257, 65535]], np.int32)), (0, 51, 255)),
        (tiff(np.asarray([[0, 51 * 257, 65535]], np.uint16)), (0, 51, 255)),
        (tiff(np.asarray([[0, 1]], np.uint16)), (0, 0)),
        (b"P5 2 1 65535\n\x00\xff\x33\x33", (1, 51)),
    ],
)
def test_wide_numbers_are_scaled(
    tmp_path: pathlib.Path, content: bytes, row: tuple[int, ...]
) -> None:
    image = read(tmp_path, content)
    np.testing.assert_array_equal(255 * image[0, :, 0], row)


@pytest.mark.parametrize(
    "values",
    [
        np.asarray([[0, 300]], np.float32),
        np.asarray([[-5, 3]], np.int32),
        np.asarray([[0, 65536]], np.int32),
    ],
)
def test_numbers_that_are_no_brightness_are_refused(
    tmp_path: pathlib.Path, values: np.ndarray
) -> None:
    with pytest.raises(ValueError, match=r"path: .*numbers from 0 to"):
        read(tmp_path, tiff(values))


def test_an_eps_is_refused_whatever_its_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "EPS")
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("started"))
    (tmp_path / "picture.png").write_bytes(content.getvalue())
    with pytest.raises(ValueError, match=r"path: .*picture.png is no image that can be read"):
        data.read_image(tmp_path / "picture.png")


def test_read_image_turns_it_upright(tmp_path: pathlib.Path) -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown after a quarter turn clockwise
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif)
    np.testing.assert_array_equal(
        read(tmp_path, buffer.getvalue()), np.rot90(pixels, -1).astype(np.float32) / 255
    )


def test_read_image_keeps_its_own_size(tmp_path: pathlib.Path) -> None:
    assert read(tmp_path, RED).shape == (4, 6, 3)


def test_read_image_resizes(tmp_path: pathlib.Path) -> None:
    assert read(tmp_path, GREY, size=(8, 5)).shape == (8, 5, 3)


@pytest.mark.parametrize(("longest", "shape"), [(6, (4, 6, 3)), (3, (2, 3, 3)), (1, (1, 1, 3))])
def test_the_longest_side_keeps_the_aspect(
    tmp_path: pathlib.Path, longest: int, shape: tuple[int, ...]
) -> None:
    assert read(tmp_path, RED, longest=longest).shape == shape


@pytest.mark.parametrize(("options"), [{"longest": 0}, {"longest": 4, "size": 4}])
def test_an_impossible_longest_side_is_named(
    tmp_path: pathlib.Path, options: dict[str, int]
) -> None:
    with pytest.raises(ValueError, match="longest: "):
        read(tmp_path, RED, **options)


def test_shrinking_is_antialiased(tmp_path: pathlib.Path) -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    buffer = io.BytesIO()
    Image.fromarray(stripes).save(buffer, "PNG")
    image = read(tmp_path, buffer.getvalue(), size=8)
    np.testing.assert_allclose(image[2:-2, 2:-2], 0.5, atol=0.01)


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_read_image_names_a_damaged_file(tmp_path: pathlib.Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"path: .*picture is (no|a damaged)"):
        read(tmp_path, content)


def test_read_image_refuses_a_folder(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"path: .*a folder"):
        data.read_image(tmp_path)


# The real sets, where they are


def shared(name: str) -> pathlib.Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"shared/data/{name} is not here")
    return path


@pytest.mark.parametrize(
    ("name", "shape", "classes", "first"),
    [
        ("mnist", (10000, 28, 28, 1), 10, "0"),
        ("cifar", (10000, 32, 32, 3), 10, "airplane"),
        ("animals", (2550, 64, 64, 3), 51, "African_elephant"),
    ],
)
def test_a_real_set(
    name: str, shape: tuple[int, ...], classes: int, first: str, request: pytest.FixtureRequest
) -> None:
    ds = request.getfixturevalue(f"{name}_test")
    assert (ds.images.shape, len(ds.classes), ds.classes[0]) == (shape, classes, first)
    assert set(ds.labels.tolist()) == set(range(classes))


def test_the_first_mnist_test_digits() -> None:
    assert data.load(shared("mnist"), "test").labels[:8].tolist() == [7, 2, 1, 0, 4, 1, 4, 9]


def test_a_real_photograph() -> None:
    image = data.read_image(shared("photos") / "lion.jpg", size=64)
    assert image.shape == (64, 64, 3)
    assert image.std() > 0.05
