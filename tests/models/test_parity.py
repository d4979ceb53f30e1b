"""Every family against the public reference: logits, an activation and the input gradient."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tests.golden import networks

GOLDEN = {file.stem: networks.load(file.stem) for file in sorted(networks.FOLDER.glob("*.npz"))}
# Of two sizes the last one is no square: whole runs try that one.
SIZES = [
    pytest.param(name, f"{h}x{w}", marks=[pytest.mark.slow] * ([h, w] != about["sizes"][-1]))
    for name, (about, _) in GOLDEN.items()
    for h, w in about["sizes"]
]


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_numbers_are_the_reference_s(name, size):
    about, expected = GOLDEN[name]
    # In double precision no ReLU is on the other side of a tie.
    with jax.enable_x64(True):
        found = networks.computed(about, tuple(map(int, size.split("x"))))
    for key, value in found.items():
        part = f"{size}/{key}"
        norm = expected[f"{part}/norm"]
        assert value.shape == tuple(expected[f"{part}/shape"])
        np.testing.assert_allclose(np.linalg.norm(value), norm, rtol=1e-4, err_msg=part)
        sample = expected[f"{part}/sample"]
        away = np.linalg.norm(networks.sample(value) - sample)
        assert away <= 1e-4 * np.linalg.norm(sample), part


def test_golden_files_are_small():
    sizes = [file.stat().st_size for file in networks.FOLDER.glob("*.npz")]
    assert sizes and max(sizes) <= 30_000
