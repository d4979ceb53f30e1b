"""Which of the formats is it? One split of an image set on disk."""

from __future__ import annotations

import gzip
import tarfile
import zipfile
import zlib

from rvis import files
from rvis.data.cifar import is_cifar, load_cifar, tar_members
from rvis.data.dataset import FORMATS, Dataset
from rvis.data.idx import is_idx, load_idx
from rvis.data.pictures import Size, as_size
from rvis.data.trees import load_tree, walk

_BROKEN_ARCHIVE = (gzip.BadGzipFile, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile)


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
    target = as_size(size)
    if not source.exists():
        raise FileNotFoundError(f"path: there is nothing at {source}")
    if source.is_dir():
        found = {entry.name for entry in source.iterdir() if entry.is_file()}
        if is_idx(found):
            return load_idx(source, found, split, target)
        if is_cifar(found):
            return load_cifar(source, found, lambda n: (source / n).read_bytes(), split, target)
        return load_tree(source, walk(source), lambda n: (source / n).read_bytes(), split, target)
    try:
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                return load_tree(source, archive.namelist(), archive.read, split, target)
        if tarfile.is_tarfile(source):
            held = tar_members(source)
            if is_cifar(held):
                return load_cifar(source, held, held.__getitem__, split, target)
    except _BROKEN_ARCHIVE as error:
        raise ValueError(f"path: {source} is damaged or cut short ({error})") from error
    with open(source, "rb") as handle:
        cut = ", which begins as a .zip but is cut short" if handle.read(2) == b"PK" else ""
    raise ValueError(f"path: {FORMATS} was expected, given {source}{cut}")
