"""Folders and zips of pictures, as SPLIT/CLASS/NAME."""

from __future__ import annotations

import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

from rvis.data.dataset import FORMATS, Dataset, choose, title
from rvis.data.pictures import decode, stack

_SUFFIXES = tuple(".jpg .jpeg .jfif .png .bmp .webp .gif .tif .tiff .ppm .pgm".split())
_UNREAD = tuple(".avif .heic .heif .jp2 .jxl .psd .eps .svg .raw .dng".split())
"""Pictures too, which would be missing without a word."""


def walk(folder: pathlib.Path) -> list[str]:
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
    name = parts[-1].lower()
    if not hidden and name.endswith(_UNREAD):
        kinds = ", ".join(_SUFFIXES)
        raise ValueError(f"path: pictures in {kinds} were expected, given {'/'.join(parts)}")
    return not hidden and name.endswith(_SUFFIXES)


def load_tree(
    source: pathlib.Path,
    names: Iterable[str],
    read: Callable[[str], bytes],
    split: str,
    size: tuple[int, int] | None,
) -> Dataset:
    """A split of the pictures of those names, which `read` gives."""
    split_up = {tuple(name.split("/")) for name in names}
    found = sorted(parts for parts in split_up if _is_picture(parts))
    if not found:
        raise ValueError(f"path: {FORMATS} was expected, but {source} holds no such thing")
    top = int(len({parts[0] for parts in found}) == 1 and all(len(parts) == 4 for parts in found))
    stray = next((parts for parts in found if len(parts) != top + 3), None)
    if stray is not None:
        raise ValueError(
            f"path: images are expected as SPLIT/CLASS/NAME.jpg, such as train/cat/01.jpg, given "
            f"{'/'.join(stray)} in {source}"
        )
    chosen = choose(split, {parts[top] for parts in found}, source)
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
            yield where, decode(content, where)

    labels = np.array([index[parts[top + 1]] for parts in wanted], np.int32)
    return Dataset(stack(len(wanted), pictures(), size), labels, classes, title(source))
