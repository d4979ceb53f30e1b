"""Windows and random masks: on linear functions, against loops, and their statistics."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import attribution
from rvis.attribution.masks import RandomMasks
from tests import toys

SHAPE = (7, 9, 2)
RNG = np.random.default_rng(5)
WEIGHTS = RNG.standard_normal((126, 3)).astype(np.float32)
LINEAR = toys.linear(WEIGHTS, SHAPE)
IMAGES = RNG.random((2, *SHAPE), np.float32)
QUIET = {"progress": False}


@pytest.mark.parametrize(
    ("window", "stride"), [((1, 1), (1, 1)), ((3, 2), (2, 2)), ((4, 5), (3, 1)), ((7, 9), (7, 9))]
)
@pytest.mark.parametrize("baseline", [0.0, RNG.random(SHAPE, np.float32)], ids=["black", "image"])
def test_occlusion_is_the_mean_fall_over_a_places_windows(window, stride, baseline):
    maps = attribution.occlusion(
        LINEAR, IMAGES, 1, window=window, stride=stride, baseline=baseline, **QUIET
    ).maps
    terms = ((IMAGES - baseline) * WEIGHTS[:, 1].reshape(SHAPE)).sum(-1)
    total, windows = np.zeros((2, 7, 9)), np.zeros((7, 9))
    for top in range(0, 7 - window[0] + stride[0], stride[0]):
        for left in range(0, 9 - window[1] + stride[1], stride[1]):
            box = np.s_[top : top + window[0], left : left + window[1]]
            total[(slice(None), *box)] += terms[(slice(None), *box)].sum((1, 2))[:, None, None]
            windows[box] += 1
    assert windows.all()
    np.testing.assert_allclose(maps, total / windows, atol=2e-5)


def test_masks_keep_their_share_and_move():
    sampler = RandomMasks(jnp.float32(0.3), 3)
    keys = jax.random.split(jax.random.key(0), 2000)
    masks = np.asarray(jax.jit(jax.vmap(lambda key: sampler.mask(key, SHAPE)))(keys))
    assert masks.min() >= 0
    assert masks.max() <= 1
    np.testing.assert_allclose(masks.mean(0), 0.3, atol=0.05)
    assert len(np.unique(np.argmax(masks.reshape(2000, -1), 1))) > 20


def test_masks_are_enlarged_bilinearly():
    keys = jax.random.split(jax.random.key(0), 50)
    sampler = RandomMasks(jnp.float32(0.5), 2)
    masks = np.asarray(jax.jit(jax.vmap(lambda key: sampler.mask(key, (16, 16))))(keys))
    # From cell to cell over twelve pixels, not at once.
    assert np.abs(np.diff(masks, axis=1)).max() == pytest.approx(1 / 12)
    assert np.abs(np.diff(masks, 2, axis=1)).max() <= 1 / 12 + 1e-6


def test_rise_finds_the_only_places_that_count():
    weights = np.zeros((*SHAPE, 1), np.float32)
    weights[1:3, 5:8] = 1
    model = toys.linear(weights.reshape(-1, 1), SHAPE)
    options = {"samples": 600, "grid": 4, **QUIET}
    maps = attribution.rise(model, np.ones(SHAPE, np.float32), 0, **options).maps
    peak = np.unravel_index(maps.argmax(), maps.shape)
    assert peak in [(y, x) for y in (1, 2) for x in (5, 6, 7)]
    assert maps.mean() == pytest.approx(0, abs=1e-4)


def test_rise_is_the_conditional_mean_over_its_masks():
    samples, key = 37, jax.random.key(4)
    maps = attribution.rise(LINEAR, IMAGES, 2, samples=samples, grid=3, key=key, **QUIET).maps
    sampler = RandomMasks(jnp.float32(0.5), 3)
    masks = np.stack(
        [np.asarray(sampler.mask(jax.random.fold_in(key, i), SHAPE)) for i in range(samples)]
    )
    seen = IMAGES[:, None] * masks[None, ..., None]
    values = seen.reshape(2, samples, -1) @ WEIGHTS[:, 2]
    expected = np.einsum("nm,mhw->nhw", values, masks) / masks.sum(0)
    expected -= expected.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(maps, expected, atol=2e-5)


def test_a_constant_added_to_the_score_changes_no_map():
    more = np.concatenate([WEIGHTS, WEIGHTS], 1)
    plain = attribution.rise(toys.linear(more, SHAPE), IMAGES, 0, samples=64, grid=3, **QUIET)

    def shifted(params, images, *, tap, relu=jax.nn.relu):
        return tap("out", images.reshape(len(images), -1) @ params + 50)

    model = toys.linear(more, SHAPE).replace(apply=shifted)
    raised = attribution.rise(model, IMAGES, 0, samples=64, grid=3, **QUIET)
    np.testing.assert_allclose(raised.maps, plain.maps, atol=1e-4)
