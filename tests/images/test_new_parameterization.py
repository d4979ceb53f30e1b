"""A parameterization of one's own: its definition, and that a visualization takes it as it is."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import objectives
from rvis.engine import programs
from tests import toys

SHAPE = (6, 8, 3)
MODEL = toys.pointwise()
QUICK = {"steps": 12, "transforms": (), "progress": False}


@dataclasses.dataclass(frozen=True)
class LowRank:
    """Pictures whose channels are sigmoids of matrices of low rank, rows times columns."""

    shape: tuple[int, int, int]
    rank: int = 2

    def init(self, key):
        height, width, channels = self.shape
        rows, columns = jax.random.split(key)
        return {
            "rows": jax.random.normal(rows, (channels, height, self.rank), jnp.float32),
            "columns": jax.random.normal(columns, (channels, self.rank, width), jnp.float32),
        }

    def decode(self, position):
        logits = position["rows"] @ position["columns"]
        return jax.nn.sigmoid(jnp.moveaxis(logits, 0, -1))

    def encode(self, image):
        inside = jnp.clip(image, 1e-3, 1 - 1e-3)
        logits = jnp.moveaxis(jnp.log(inside) - jnp.log1p(-inside), -1, 0)
        rows, sizes, columns = jnp.linalg.svd(logits, full_matrices=False)
        most = slice(self.rank)
        return {"rows": rows[..., most] * sizes[:, None, most], "columns": columns[:, most]}


def rank(picture):
    """Of the logits of each channel."""
    logits = np.log(picture) - np.log1p(-picture)
    return [int(np.linalg.matrix_rank(logits[..., c], tol=1e-3)) for c in range(3)]


def drawn(objective, key=0, **options):
    options = {"image": LowRank(SHAPE), **QUICK, **options}
    return rvis.visualize(MODEL, objective, key=key, **options)


def test_the_score_rises_and_pictures_are_of_the_rank():
    found = drawn(objectives.logit([0, 1]))
    assert found.images.shape == (2, *SHAPE)
    assert (found.scores[:, -1] > found.scores[:, 0]).all()
    assert rank(found.images[0]) == [2, 2, 2]
    assert "LowRank" in str(found.config["image"])


def test_a_unit_is_the_same_alone_and_in_a_batch():
    both, alone = drawn(objectives.logit([0, 1])), drawn(objectives.logit(1))
    np.testing.assert_array_equal(both.images[1], alone.images)
    assert np.abs(alone.images - drawn(objectives.logit(1), key=1).images).max() > 1e-3


def test_facets_of_a_group_differ():
    goal = objectives.channel("conv", 0) + objectives.diversity("conv")
    found = drawn(goal, facets=2)
    assert found.images.shape == (2, *SHAPE)
    assert np.abs(found.images[0] - found.images[1]).max() > 1e-3


def test_equal_descriptions_share_one_program():
    drawn(objectives.channel("conv", 0))
    before = programs.advance._cache_size()
    drawn(objectives.channel("conv", 2), key=3)
    assert programs.advance._cache_size() == before
    drawn(objectives.channel("conv", 2), image=LowRank(SHAPE, rank=1))
    assert programs.advance._cache_size() == before + 1


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_it_starts_from_the_nearest_picture_of_its_rank(kept):
    rng = np.random.default_rng(0)
    logits = np.einsum("hrc,wrc->hwc", rng.normal(size=(6, kept, 3)), rng.normal(size=(8, kept, 3)))
    start = (1 / (1 + np.exp(-0.5 * logits))).astype(np.float32)
    found = drawn(objectives.logit(0), start=start, snapshots=(0,), steps=1)
    away = np.abs(found.snapshots[0] - start).max()
    assert away < 1e-4 if kept <= 2 else away > 1e-2


def test_it_serves_inversion_as_well():
    target = np.random.default_rng(1).uniform(0.3, 0.7, SHAPE).astype(np.float32)
    found = rvis.invert(MODEL, target, "pool", image=LowRank(SHAPE), steps=60, progress=False)
    assert found.errors < 0.1 and rank(found.images) == [2, 2, 2]
