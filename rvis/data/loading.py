"""Which of the formats is it? One split of an image set on disk."""

from __future__ import annotations

import gzip
import tarfile
import zipfile
import zlib

from rvis import files, gate
from rvis.data.cifar import is_cifar, load_cifar, tar_members
from rvis.data.dataset import FORMATS, Dataset
from rvis.data.idx import is_idx, load_idx
from rvis.data.pictures import Size, as_size
from rvis.data.trees import load_tree, walk

_BROKEN_ARCHIVE = (gzip.BadGzipFile, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile)


@gate.public
def load(path: files.PathLike, split: str = "train", *, size: Size | None = None) -> Dataset:
    """One split of an image set on disk, recognised by what is in it.

    Read are:
      * a folder with MNIST's IDX files (train-images-idx3-ubyte, t10k-labels-idx1-ubyte, …), each
        as it is or as .gz;
      * a folder or .tar.gz of CIFAR-10's or CIFAR-100's Python batches, of which nothing is run;
      * a folder or .zip of images SPLIT/CLASS/NAME.jpg (.png, .bmp, .webp, .gif, .tif, .ppm),
        possibly under one top folder, which are read as by `read_image`. Classes are the sorted
        folder names of all splits. If all of the split is grey, it stays so.

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
      TypeError, ValueError: naming the argument; `path` for another format, or a damaged file.

    Example:
      >>> import pathlib, tempfile
      >>> from PIL import Image
      >>> from rvis import data
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = pathlib.Path(folder, "train", "cat", "1.png")
      ...     file.parent.mkdir(parents=True)
      ...     Image.new("RGB", (12, 8)).save(file)
      ...     data.load(folder, "train", size=8).images.shape
      (1, 8, 8, 3)
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
                for entry in archive.infolist():
                    where = f"{entry.filename} in {source}"
                    files.check_unpacked(where, entry.compress_size, entry.file_size)
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
