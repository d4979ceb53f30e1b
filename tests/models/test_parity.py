"""Every family against the public reference: logits, an activation and the input gradient."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest

from rvis.models.families import convnext, efficientnet
from tests.golden import networks

GOLDEN = {file.stem: networks.load(file.stem) for file in sorted(networks.FOLDER.glob("*.npz"))}
# Whole runs leave out what others have too. The first two are looked at by their names below.
# Gradients of grouped convolutions take seconds in double precision, so that of these only what
# goes forward is seen. EfficientNet-Lite0's logits are in test_real. DINOv2 with registers has all
# that it has without, and CLIP's with quick gelu differs by that from the one with gelu, which ViT
# Tiny has.
SELDOM = (
    *("convnext_tiny_torchvision", "efficientnet_b0_torchvision", "resnext50_32x4d"),
    *("efficientnet_lite0", "vit_small_patch14_dinov2", "vit_base_patch32_clip"),
)
# Of two sizes the last one is no square: whole runs try that one.
SIZES = [
    pytest.param(
        name,
        f"{h}x{w}",
        marks=[pytest.mark.slow] * (name in SELDOM or [h, w] != about["sizes"][-1]),
    )
    for name, (about, _) in GOLDEN.items()
    for h, w in about["sizes"]
]


def compare(name, size, **options):
    about, expected = GOLDEN[name]
    # In double precision no ReLU is on the other side of a tie.
    with jax.enable_x64(True):
        found = networks.computed(about, tuple(map(int, size.split("x"))), **options)
    for key, value in found.items():
        part = f"{size}/{key}"
        norm = expected[f"{part}/norm"]
        assert value.shape == tuple(expected[f"{part}/shape"])
        np.testing.assert_allclose(np.linalg.norm(value), norm, rtol=1e-4, err_msg=part)
        sample = expected[f"{part}/sample"]
        away = np.linalg.norm(networks.sample(value) - sample)
        assert away <= 1e-4 * np.linalg.norm(sample), part


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_numbers_are_the_reference_s(name, size):
    compare(name, size)


def test_grouped_convolutions_give_the_reference_s_numbers():
    compare("resnext50_32x4d", "64x96", gradient=False)


@pytest.mark.parametrize(
    ("family", "theirs", "ours"),
    [
        (convnext, "convnext_tiny_torchvision", "convnext_small_depths"),
        (efficientnet, "efficientnet_b0_torchvision", "tf_efficientnet_b0"),
    ],
)
def test_torchvision_s_names_are_those_of_timm_s_files_in_their_order(family, theirs, ours):
    """Both list the same weights in the same order, of the blocks that both have."""
    timm = {name: tuple(shape) for name, shape in GOLDEN[ours][0]["shapes"].items()}
    given = {name: np.zeros(shape) for name, shape in GOLDEN[theirs][0]["shapes"].items()}
    found, fields = family.adapt(given)
    assert [(name, value.shape) for name, value in found.items() if name in timm] == list(
        timm.items()
    )
    assert len(found) == len(given) and fields == {}
    # What this network alone has are further blocks of the same stages.
    assert {re.sub(r"\.\d+\.", ".0.", name) for name in found} == {
        re.sub(r"\.\d+\.", ".0.", name) for name in timm
    }


def test_golden_files_are_small():
    sizes = [file.stat().st_size for file in networks.FOLDER.glob("*.npz")]
    assert sizes and max(sizes) <= 30_000
