"""Every family against the public reference: logits, an activation and the input gradient."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tests.golden import networks

NAMES = sorted(file.stem for file in networks.FOLDER.glob("*.npz"))


@pytest.fixture(scope="module", params=NAMES)
def golden(request):
    return request.param, *networks.load(request.param)


def test_numbers_are_the_reference_s(golden):
    _, about, expected = golden
    for height, width in about["sizes"]:
        # In double precision no ReLU is on the other side of a tie.
        with jax.enable_x64(True):
            found = networks.computed(about, (height, width))
        for key, value in found.items():
            name = f"{height}x{width}/{key}"
            norm = expected[f"{name}/norm"]
            assert value.shape == tuple(expected[f"{name}/shape"])
            np.testing.assert_allclose(np.linalg.norm(value), norm, rtol=1e-4, err_msg=name)
            sample = expected[f"{name}/sample"]
            away = np.linalg.norm(networks.sample(value) - sample)
            assert away <= 1e-4 * np.linalg.norm(sample), name


def test_golden_files_are_small():
    sizes = [file.stat().st_size for file in networks.FOLDER.glob("*.npz")]
    assert sizes and max(sizes) <= 30_000
