"""Two small networks with seeded weights, as PyTorch has them: a plain one and a residual one."""

from __future__ import annotations

import numpy as np

SHAPE = (16, 16, 3)
MEAN, STD = (0.45, 0.5, 0.4), (0.25, 0.2, 0.3)
IMAGES = np.random.default_rng(7).random((2, *SHAPE), np.float32)
CLASSES = np.array([1, 3])
BASELINES = np.random.default_rng(8).random((2, *SHAPE), np.float32)


def _weights(layout, seed):
    rng = np.random.default_rng(seed)
    made = {}
    for name, (kind, *sizes) in layout.items():
        if kind == "bn":
            (n,) = sizes
            made[name] = {
                "scale": rng.uniform(0.5, 1.5, n),
                "shift": rng.normal(0, 0.2, n),
                "mean": rng.normal(0, 0.2, n),
                "var": rng.uniform(0.5, 1.5, n),
            }
        else:
            out, fan = sizes[0], np.prod(sizes[1:])
            kernel = rng.normal(0, np.sqrt(2 / fan), sizes)
            made[name] = {"kernel": kernel, "bias": rng.normal(0, 0.1, out)}
    return {n: {k: v.astype(np.float32) for k, v in p.items()} for n, p in made.items()}


# Kernels as PyTorch has them: (out, in, h, w) and (out, in).
PLAIN = _weights(
    {
        "conv1": ("conv", 8, 3, 3, 3),
        "conv2": ("conv", 8, 8, 3, 3),
        "conv3": ("conv", 12, 8, 3, 3),
        "fc1": ("dense", 16, 12 * 4 * 4),
        "fc2": ("dense", 5, 16),
    },
    0,
)
RESIDUAL = _weights(
    {
        "conv1": ("conv", 8, 3, 3, 3),
        "bn1": ("bn", 8),
        "a.conv1": ("conv", 8, 8, 3, 3),
        "a.bn1": ("bn", 8),
        "a.conv2": ("conv", 8, 8, 3, 3),
        "a.bn2": ("bn", 8),
        "b.conv1": ("conv", 12, 8, 3, 3),
        "b.bn1": ("bn", 12),
        "b.conv2": ("conv", 12, 12, 3, 3),
        "b.bn2": ("bn", 12),
        "b.down": ("conv", 12, 8, 1, 1),
        "b.downbn": ("bn", 12),
        "fc": ("dense", 5, 12),
    },
    1,
)

# Maps to be judged, with the places of an object and segments.
JUDGED = np.random.default_rng(9).random((2, 16, 16)).astype(np.float32)
MASKS = np.zeros((2, 16, 16), int)
MASKS[0, 3:9, 4:12] = MASKS[1, 8:, 10:] = 1
SEGMENTS = np.arange(16)[:, None] // 4 * 4 + np.arange(16) // 4
