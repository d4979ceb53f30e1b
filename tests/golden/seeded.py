"""The weights and images behind the golden files: rebuilt from a name and a shape alone.

NAME.keys.json lists a reference state-dict (entry: shape, PyTorch's layout). NAME.npz holds what
the public reference computes on a CPU in float32 when every entry is `weight(name, shape)` and the
input, after normalisation, is `images()`: logits; `act/LAYER/shape` (NCHW), `/norm` and `/sample`
(256 values, evenly spaced over the flattened tensor); and the same of `grad_logit7`, the gradient
of image 0's logit 7 with respect to the images.
"""

from __future__ import annotations

import json
import pathlib
import zlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 array for a reference state-dict's entry."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_var":
        return (0.5 + generator.random(shape)).astype(np.float32)
    z = np.empty(shape, np.float32)
    # In double precision, piece by piece: a VGG-16's first dense layer would take 800 MB.
    for piece in np.split(z.reshape(-1), range(1 << 16, z.size, 1 << 16)):
        piece[:] = generator.standard_normal(piece.size)
    if leaf == "running_mean" or "bias" in leaf:
        return 0.1 * z
    if len(shape) <= 1:
        return 1 + 0.1 * z
    z *= np.float32(np.sqrt(2 / np.prod(shape[1:])))
    return z


def images(scale: float = 1.0) -> np.ndarray:
    """The reference input, two normalised images, NHWC."""
    nchw = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    return nchw.transpose(0, 2, 3, 1) * np.float32(scale)


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """{entry: shape} of a reference state-dict."""
    entries = json.loads((FOLDER / f"{name}.keys.json").read_text())
    return {
        entry: tuple(shape)
        for entry, shape in entries.items()
        if not entry.endswith("num_batches_tracked")
    }


def state(name: str) -> dict[str, np.ndarray]:
    """A whole seeded state-dict."""
    return {entry: weight(entry, shape) for entry, shape in shapes(name).items()}


def expected(name: str) -> dict[str, np.ndarray]:
    """What the reference computes."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def sample(activation: np.ndarray) -> np.ndarray:
    """The 256 values of a channels-last tensor that the golden files hold."""
    activation = np.moveaxis(activation, -1, 1) if activation.ndim == 4 else activation
    flat = activation.reshape(-1)
    return flat[np.linspace(0, flat.size - 1, 256).astype(np.int64)]
