"""Reads the image sets users already have: IDX files, CIFAR batches, image folders and zips."""

from __future__ import annotations

import dataclasses
import gzip
import io
import math
import os
import pathlib
import pickle
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from rvis import checks, files

Size = int | tuple[int, int]
"""A side in pixels for a square, or (height, width)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images of one size, in memory as bytes.

    Attributes:
      images: (n, H, W, C) uint8; C is 3 for RGB, 1 for grey.
      labels: (n,) int32, each an index into `classes`.
      classes: one name a class.
      name: what to call it in titles and messages.

    Raises:
      TypeError: naming the attribute, for a wrong type or dtype.
      ValueError: naming the attribute, for a wrong shape, unequal lengths, a label out of range.

    Example:
      >>> import numpy as np
      >>> from rvis import data
      >>> images = np.zeros((3, 8, 8, 1), np.uint8)
      >>> ds = data.Dataset(images, np.array([0, 1, 1], np.int32), ("even", "odd"), "parity")
      >>> len(ds), ds.take([2]).labels.tolist(), ds.floats([0, 1]).shape
      (3, [1], (2, 8, 8, 1))
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        """Refuses what the attributes may not be."""
        for argument, value, dtype in (
            ("images", self.images, np.uint8),
            ("labels", self.labels, np.int32),
        ):
            if not isinstance(value, np.ndarray) or value.dtype != dtype:
                given = f"{type(value).__name__} of {getattr(value, 'dtype', 'no dtype')}"
                raise TypeError(
                    f"{argument}: a NumPy array of {dtype.__name__} was expected, given {given}"
                )
        shape = self.images.shape
        if len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape[1:]:
            raise ValueError(f"images: (n, H, W, 1 or 3) was expected, given shape {shape}")
        if self.labels.shape != shape[:1]:
            raise ValueError(
                f"labels: one an image, shape {shape[:1]}, was expected, given shape "
                f"{self.labels.shape}"
            )
        if not isinstance(self.classes, tuple) or not all(
            isinstance(name, str) for name in self.classes
        ):
            raise TypeError(f"classes: a tuple of str was expected, given {self.classes!r}")
        if not isinstance(self.name, str):
            raise TypeError(f"name: a str was expected, given {self.name!r}")
        checks.integers("labels", self.labels, high=len(self.classes), what="the classes")

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.images)

    def take(self, indices: Sequence[int] | np.ndarray | slice) -> Dataset:
        """Some of the images with their labels, in the order asked for.

        Args:
          indices: (m,) integers from 0 to n - 1, or a slice (which copies nothing).

        Raises:
          TypeError: naming `indices`, for anything but integers or a slice.
          ValueError: naming `indices`, for a wrong rank or an index out of range.
        """
        chosen = self._indices(indices)
        return dataclasses.replace(self, images=self.images[chosen], labels=self.labels[chosen])

    def floats(self, indices: Sequence[int] | np.ndarray | slice | None = None) -> np.ndarray:
        """Images as models take them: (m, H, W, C) float32 in [0, 1].

        Args:
          indices: as in `take`; all of them by default.

        Raises:
          TypeError, ValueError: as in `take`.
        """
        chosen = self.images if indices is None else self.images[self._indices(indices)]
        return chosen.astype(np.float32) / np.float32(255)

    def _indices(self, indices: Sequence[int] | np.ndarray | slice) -> np.ndarray | slice:
        if isinstance(indices, slice):
            return indices
        array = np.asarray(indices)
        if array.ndim != 1:
            raise ValueError(
                f"indices: a slice or a list of integers was expected, given {indices!r}"
            )
        if array.size == 0:
            return array.astype(np.int32)
        return checks.integers("indices", array, high=len(self), what=f"the images of {self.name}")


def load(path: files.PathLike, split: str = "train", *, size: Size | None = None) -> Dataset:
    """One split of an image set on disk, recognised by what is in it.

    Read are:
      * a folder with MNIST's IDX files (train-images-idx3-ubyte, t10k-labels-idx1-ubyte, …), each
        as it is or as .gz. Classes are the digits, and further numbers where labels go beyond 9;
      * a folder or .tar.gz of CIFAR-10's or CIFAR-100's Python batches. They are pickles: only
        plain data is admitted, and nothing in them is run. CIFAR-100 gets its 100 fine labels;
      * a folder or .zip of images SPLIT/CLASS/NAME.jpg (.jpeg, .png, .bmp, .webp, .ppm), possibly
        under one top folder. Classes are the sorted folder names of all splits together, images are
        sorted by name within their class. Hidden files and __MACOSX are passed over.

    Pictures in an image folder are turned upright by their EXIF orientation and put on mid-grey
    (128 of 255) where transparent. If all of the split is grey, it stays so (C = 1); otherwise grey
    pictures become RGB.

    Args:
      path: the folder or archive.
      split: its name there. "val", "valid", "validation" and "test" stand for each other where only
        one exists.
      size: the side, or (height, width), to which each image is cut at its centre to that aspect
        and resized (bicubic, antialiased). Needed where the images differ in size.

    Returns:
      A `Dataset` with (n, H, W, C) uint8 images, C = 3 or 1, named as the folder or archive.

    Raises:
      FileNotFoundError: naming `path`, where nothing is there.
      TypeError: naming `path` or `size`, for a wrong type.
      ValueError: naming `path` or the file inside it: none of these formats, another layout, a file
        missing, damaged or cut short, a pickle with more than plain data. Naming `split`: no such
        split, with those there are. Naming `size`: not positive, or missing where needed.

    Sources:
      IDX: http://yann.lecun.com/exdb/mnist; CIFAR: https://www.cs.toronto.edu/~kriz/cifar.html.

    Example:
      >>> import pathlib, tempfile
      >>> from PIL import Image
      >>> from rvis import data
      >>> folder = tempfile.TemporaryDirectory()
      >>> for name in ("train/cat/1.png", "train/dog/1.png", "train/dog/2.png"):
      ...     file = pathlib.Path(folder.name, name)
      ...     file.parent.mkdir(parents=True, exist_ok=True)
      ...     Image.new("RGB", (12, 8)).save(file)
      >>> ds = data.load(folder.name, "train", size=8)
      >>> ds.images.shape, ds.labels.tolist(), ds.classes
      ((3, 8, 8, 3), [0, 1, 1], ('cat', 'dog'))
      >>> folder.cleanup()
    """
    source = files.as_path("path", path)
    target = _size(size)
    if not source.exists():
        raise FileNotFoundError(f"path: there is nothing at {source}")
    if source.is_dir():
        found = {entry.name for entry in source.iterdir() if entry.is_file()}
        if any(_IDX.fullmatch(name) for name in found):
            return _load_idx(source, found, split, target)
        if _is_cifar(found):
            return _load_cifar(source, found, lambda n: (source / n).read_bytes(), split, target)
        return _load_tree(source, _walk(source), lambda n: (source / n).read_bytes(), split, target)
    try:
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                return _load_tree(source, archive.namelist(), archive.read, split, target)
        if tarfile.is_tarfile(source):
            held = _tar_members(source)
            if _is_cifar(held):
                return _load_cifar(source, held, held.__getitem__, split, target)
    except _BROKEN_ARCHIVE as error:
        raise ValueError(f"path: {source} is damaged or cut short ({error})") from error
    with open(source, "rb") as handle:
        cut = ", which begins as a .zip but is cut short" if handle.read(2) == b"PK" else ""
    raise ValueError(f"path: {_FORMATS} was expected, given {source}{cut}")


def read_image(
    path: files.PathLike, *, size: Size | None = None, longest: int | None = None
) -> np.ndarray:
    """One picture as models take it: (H, W, 3) float32 RGB in [0, 1].

    It is turned upright by its EXIF orientation, put on mid-grey (128/255, about .5) where it is
    transparent, and made RGB where it is grey.

    Args:
      path: a file in any format that Pillow reads.
      size: the side, or (height, width), to which it is cut at its centre to that aspect and
        resized (bicubic, antialiased); its own size by default.
      longest: pixels of its longer side, to which it is resized with nothing cut off, instead.

    Raises:
      FileNotFoundError: naming `path`, where there is no file.
      TypeError: naming `path`, `size` or `longest`, for a wrong type.
      ValueError: naming `path`, where it is no image, is cut short, or is beyond Pillow's limit
        (twice `PIL.Image.MAX_IMAGE_PIXELS`); naming `size` or `longest`, where it is not positive,
        or where both are given.

    Example:
      >>> import pathlib, tempfile
      >>> from PIL import Image
      >>> from rvis import data
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = pathlib.Path(folder, "red.png")
      ...     Image.new("RGB", (30, 20), "red").save(file)
      ...     image = data.read_image(file, size=(4, 6))
      >>> image.shape, image[0, 0].tolist()
      ((4, 6, 3), [1.0, 0.0, 0.0])
    """
    source = files.as_path("path", path)
    target = _size(size)
    if longest is not None:
        checks.count("longest", longest)
        if target is not None:
            raise ValueError(f"longest: None was expected beside size={size}, given {longest}")
    if not source.is_file():
        kind = "a folder is" if source.is_dir() else "there is nothing"
        raise FileNotFoundError(f"path: an image file was expected, {kind} at {source}")
    image = _decode(source.read_bytes(), str(source))
    if longest is not None:
        scale = longest / max(image.size)
        target = max(1, round(image.height * scale)), max(1, round(image.width * scale))
    pixels = np.asarray(_fit(image, target).convert("RGB"))
    return pixels.astype(np.float32) / np.float32(255)


_FORMATS = (
    "a folder with MNIST's IDX files, a folder or .tar.gz of CIFAR batches, or a folder or .zip of "
    "images as SPLIT/CLASS/NAME.jpg"
)
_BROKEN = (OSError, EOFError, struct.error, zlib.error)
_BROKEN_ARCHIVE = (gzip.BadGzipFile, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile)
_HELD_OUT = ("val", "valid", "validation", "test")


def _size(size: Size | None) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2:
        raise ValueError(f"size: an int or (height, width) was expected, given {size!r}")
    return checks.count("size", pair[0]), checks.count("size", pair[1])


def _choose(split: str, there: Collection[str], source: pathlib.Path) -> str:
    order = (split, *_HELD_OUT) if split in _HELD_OUT else (split,)
    for name in order:
        if name in there:
            return name
    shown = ", ".join(map(repr, sorted(there)))
    raise ValueError(f"split: there is no {split!r} in {source}; it can be one of {shown}")


def _title(source: pathlib.Path) -> str:
    name = source.resolve().name
    return name if source.is_dir() else re.sub(r"(\.tar)?\.\w+$", "", name)


# Pictures


def _decode(content: bytes, where: str) -> Image.Image:
    """A picture upright and opaque, mode L or RGB."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return _opaque(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise ValueError(f"path: {where} is too large an image ({error})") from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"path: {where} is no image that Pillow can read") from error
    except (*_BROKEN, SyntaxError, ValueError, TypeError, LookupError, OverflowError) as error:
        raise ValueError(f"path: {where} is a damaged or cut short image ({error})") from error


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode[0] == "I":
        # Pillow's own conversion clips 16-bit grey at 255 instead of scaling it.
        wide = np.clip(np.asarray(image).astype(np.float32), 0, 65535)
        return Image.fromarray(np.rint(wide / 257).astype(np.uint8))
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        backing = Image.new("RGBA", image.size, (128, 128, 128, 255))
        image = Image.alpha_composite(backing, image.convert("RGBA")).convert("RGB")
    return image.convert("L" if grey else "RGB")


def _fit(image: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    if size is None or image.size == size[::-1]:
        return image
    return ImageOps.fit(image, size[::-1], method=Image.Resampling.BICUBIC)


def _stack(
    count: int, pictures: Iterable[tuple[str, Image.Image]], size: tuple[int, int] | None
) -> np.ndarray:
    """(count, H, W, C) uint8 of pictures given with their names; grey only if all of them are."""
    images = np.empty((0, 0, 0, 1), np.uint8)
    for i, (where, picture) in enumerate(pictures):
        pixels = np.asarray(_fit(picture, size))
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        if i == 0:
            images = np.empty((count, *pixels.shape), np.uint8)
        elif pixels.shape[:2] != images.shape[1:3]:
            raise ValueError(
                f"size: the images differ in size, {images.shape[1:3]} and then {pixels.shape[:2]} "
                f"in {where}; pass size= to bring all to one"
            )
        elif pixels.shape[2] > images.shape[3]:
            images = np.repeat(images, pixels.shape[2], axis=3)
        images[i] = pixels
    return images


def _resized(images: np.ndarray, where: str, size: tuple[int, int] | None) -> np.ndarray:
    if size is None or images.shape[1:3] == size:
        return images
    flat = images[..., 0] if images.shape[3] == 1 else images
    return _stack(len(images), ((where, Image.fromarray(pixels)) for pixels in flat), size)


# Image folders and zips


_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")


def _walk(folder: pathlib.Path) -> list[str]:
    """Files below `folder` as a/b/c, no deeper than an image tree under one top folder goes."""
    names = []
    for root, folders, found in os.walk(folder, followlinks=True):
        inside = pathlib.Path(root).relative_to(folder)
        if len(inside.parts) >= 4:
            folders.clear()
        names += [(inside / name).as_posix() for name in found]
    return names


def _is_picture(parts: tuple[str, ...]) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and parts[-1].lower().endswith(_SUFFIXES)


def _load_tree(
    source: pathlib.Path,
    names: Iterable[str],
    read: Callable[[str], bytes],
    split: str,
    size: tuple[int, int] | None,
) -> Dataset:
    split_up = {tuple(name.split("/")) for name in names}
    found = sorted(parts for parts in split_up if _is_picture(parts))
    if not found:
        raise ValueError(f"path: {_FORMATS} was expected, but {source} holds no such thing")
    top = int(len({parts[0] for parts in found}) == 1 and all(len(parts) == 4 for parts in found))
    stray = next((parts for parts in found if len(parts) != top + 3), None)
    if stray is not None:
        raise ValueError(
            f"path: images are expected as SPLIT/CLASS/NAME.jpg, such as train/cat/01.jpg, given "
            f"{'/'.join(stray)} in {source}"
        )
    chosen = _choose(split, {parts[top] for parts in found}, source)
    classes = tuple(sorted({parts[top + 1] for parts in found}))
    index = {name: i for i, name in enumerate(classes)}
    wanted = [parts for parts in found if parts[top] == chosen]

    def pictures() -> Iterable[tuple[str, Image.Image]]:
        for parts in wanted:
            name = "/".join(parts)
            where = f"{name} in {source}"
            try:
                content = read(name)
            # An encrypted entry is a RuntimeError, an unknown compression a NotImplementedError.
            except (zipfile.BadZipFile, RuntimeError, EOFError, zlib.error) as error:
                raise ValueError(f"path: {where} cannot be read ({error})") from error
            yield where, _decode(content, where)

    labels = np.array([index[parts[top + 1]] for parts in wanted], np.int32)
    return Dataset(_stack(len(wanted), pictures(), size), labels, classes, _title(source))


# MNIST's IDX files


_IDX = re.compile(r"(train|t10k)-(images-idx3|labels-idx1)-ubyte(\.gz)?")
_IDX_PREFIX = {"train": "train", "test": "t10k"}


def _load_idx(
    source: pathlib.Path, found: Collection[str], split: str, size: tuple[int, int] | None
) -> Dataset:
    there = [
        name
        for name, prefix in _IDX_PREFIX.items()
        if any(file.startswith(f"{prefix}-images") for file in found)
    ]
    prefix = _IDX_PREFIX[_choose(split, there, source)]
    arrays = []
    for kind, rank in (("images-idx3", 3), ("labels-idx1", 1)):
        name = f"{prefix}-{kind}-ubyte"
        held = [file for file in (name, f"{name}.gz") if file in found]
        if not held:
            raise ValueError(f"path: {name} (or {name}.gz) is missing in {source}")
        arrays.append(_idx(source / held[0], rank))
    images, labels = arrays
    if len(images) != len(labels):
        raise ValueError(
            f"path: {source} holds {len(images)} {prefix} images but {len(labels)} labels"
        )
    classes = tuple(map(str, range(max(10, int(labels.max(initial=0)) + 1))))
    images = _resized(images[..., None], str(source), size)
    return Dataset(images, labels.astype(np.int32), classes, _title(source))


def _idx(file: pathlib.Path, rank: int) -> np.ndarray:
    content = file.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except _BROKEN as error:
            raise ValueError(f"path: {file} is a damaged or cut short .gz ({error})") from error
    start = 4 + 4 * rank
    if len(content) < start or content[:4] != bytes((0, 0, 8, rank)):
        raise ValueError(
            f"path: an IDX file of bytes with {rank} dimensions (it begins with "
            f"{bytes((0, 0, 8, rank)).hex()}) was expected, given {file} ({content[:4].hex()})"
        )
    shape = struct.unpack(f">{rank}I", content[4:start])
    expected = start + math.prod(shape)
    if len(content) != expected:
        raise ValueError(
            f"path: {file} should have {expected} bytes for its shape {shape}, given {len(content)}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


# CIFAR's Python batches


_CIFAR10 = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
_CIFAR100 = {"train": ("train",), "test": ("test",)}


def _is_cifar(found: Collection[str]) -> bool:
    ten = {"batches.meta", *_CIFAR10["train"], *_CIFAR10["test"]}
    return bool(ten & set(found)) or ("meta" in found and ("train" in found or "test" in found))


def _tar_members(source: pathlib.Path) -> dict[str, bytes]:
    """CIFAR's files by their last name, read in one pass, since a .gz cannot be sought in."""
    wanted = {"batches.meta", "meta"}.union(*_CIFAR10.values(), *_CIFAR100.values())
    held = {}
    with tarfile.open(source) as archive:
        for member in archive:
            name = member.name.rsplit("/", 1)[-1]
            if member.isfile() and name in wanted:
                handle = archive.extractfile(member)
                assert handle is not None  # a regular file always has one
                held[name] = handle.read()
    return held


def _load_cifar(
    source: pathlib.Path,
    found: Collection[str],
    read: Callable[[str], bytes],
    split: str,
    size: tuple[int, int] | None,
) -> Dataset:
    hundred = "meta" in found
    layout, meta = (_CIFAR100, "meta") if hundred else (_CIFAR10, "batches.meta")
    key = "fine_label" if hundred else "label"
    there = [name for name, batches in layout.items() if set(batches) & set(found)]
    names = layout[_choose(split, there, source)]
    missing = [name for name in (*names, meta) if name not in found]
    if missing:
        raise ValueError(f"path: {', '.join(missing)} missing in {source}")
    held = {name: _unpickle(read(name), f"{name} in {source}") for name in (*names, meta)}
    classes = held[meta].get(f"{key}_names")
    if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes):
        raise ValueError(f"path: {meta} in {source} holds no list {key}_names")
    parts = [
        _cifar_batch(held[name], f"{key}s", len(classes), f"{name} in {source}") for name in names
    ]
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    return Dataset(_resized(images, str(source), size), labels, tuple(classes), _title(source))


def _cifar_batch(
    batch: dict[str, Any], key: str, classes: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = batch.get("data"), batch.get(key)
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.shape[1:] != (3 * 32 * 32,)
    ):
        raise ValueError(f"path: 'data' in {where} is no (n, 3072) array of uint8")
    if isinstance(labels, list) and all(type(label) is int for label in labels):
        labels = np.array(labels, object)
    elif not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        raise ValueError(f"path: {key!r} in {where} is no list of integers")
    if labels.shape != pixels.shape[:1] or ((labels < 0) | (labels >= classes)).any():
        raise ValueError(
            f"path: {key!r} in {where} are not {len(pixels)} numbers from 0 to {classes - 1}"
        )
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels.astype(np.int32)


class _Dtype:
    """Stands in for numpy.dtype in a pickle; takes integers alone."""

    def __init__(self, name: str, *_: object) -> None:
        if not re.fullmatch(r"[<>|]?[iu][1248]", name):
            raise pickle.UnpicklingError(f"an array of {name!r} is not admitted")
        self.numpy = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.numpy = self.numpy.newbyteorder(state[1])


class _Array:
    """Stands in for NumPy's array in a pickle, whose own state can be forged to point anywhere."""

    def __init__(self, *_: object) -> None:
        self.numpy = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_columns, content = state
        self._fill(content, dtype, shape, "F" if by_columns else "C")

    def _fill(self, content: str | bytes, dtype: _Dtype, shape: Any, order: Any) -> None:
        # Python 2 pickled the bytes as a str, which is read as Latin-1.
        raw = content.encode("latin1") if isinstance(content, str) else content
        self.numpy = np.frombuffer(raw, dtype.numpy).reshape(shape, order=order)


class _Buffer(_Array):
    """The same for an array of pickle protocol 5."""

    def __init__(self, content: bytes, dtype: _Dtype, shape: Any, order: Any) -> None:
        self._fill(content, dtype, shape, order)


_PLAIN = (bytes, bytearray, set, frozenset, complex)
_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    # NumPy 1 and 2, Python 2 and 3 have other names for the same.
    **{(f"{core}.multiarray", "_reconstruct"): _Array for core in ("numpy.core", "numpy._core")},
    **{(f"{core}.numeric", "_frombuffer"): _Buffer for core in ("numpy.core", "numpy._core")},
    **{(home, kind.__name__): kind for home in ("builtins", "__builtin__") for kind in _PLAIN},
}


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler that knows arrays of integers and plain data, and nothing that could be run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            # How protocol 2 spells bytes. A function of this call alone, so that no pickle can
            # change another's.
            return lambda text, encoding: text.encode("latin1")
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted")
        return _ADMITTED[module, name]


def _unpickle(content: bytes, where: str) -> dict[str, Any]:
    try:
        value = _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    # A damaged pickle can raise anything at all.
    except Exception as error:
        raise ValueError(
            f"path: {where} is no batch of plain data, or damaged ({type(error).__name__}: "
            f"{error}); none of it was run"
        ) from error
    if not isinstance(value, dict):
        raise ValueError(f"path: {where} holds a {type(value).__name__} where a dict was expected")
    return {
        key: entry.numpy if isinstance(entry, _Array) else entry for key, entry in value.items()
    }
