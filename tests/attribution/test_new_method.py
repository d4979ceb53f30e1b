"""A method that the package does not have, defined in this file: gradients at faded images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import struct
from rvis.attribution import stream
from rvis.engine import programs
from rvis.types import as_key
from tests import toys

WEIGHTS = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
SHAPE = (4, 5, 2)
LINEAR = toys.linear(WEIGHTS, SHAPE)
IMAGES = np.random.default_rng(1).random((3, *SHAPE), np.float32)


@struct.dataclass
class Faded:
    """∇f(s·x) ⊙ x at a random brightness s in [low, 1], weighted by s."""

    low: jax.Array

    def shapes(self, shape):
        return shape, ()

    def __call__(self, key, number, image, own, score):
        level = jax.random.uniform(key, (), jnp.float32, self.low, 1)
        return score.and_gradient(level * image)[1] * image, level


def faded(model, images, target, *, low=0.5, samples=16, key=0, **options):
    """The weighted mean of the gradients at faded copies, times the image."""
    question = stream.ask(model, images, target)
    seed = as_key(key)
    maps = stream.mean(
        Faded(jnp.float32(low)), question, samples=samples, key=seed, label="faded", **options
    )
    about = {"target": target, "low": low, "samples": samples, "key": seed}
    return stream.answer("faded", question, maps, question.scores(), **about)


QUIET = {"progress": False}


def test_it_is_right_on_a_linear_function():
    result = faded(LINEAR, IMAGES, [2, 0, 1], **QUIET)
    own = WEIGHTS.T[[2, 0, 1]].reshape(3, *SHAPE)
    np.testing.assert_allclose(result.maps, own * IMAGES, rtol=1e-5)
    np.testing.assert_allclose(result.maps.sum((1, 2, 3)), result.scores, rtol=1e-4)


def test_it_has_what_every_method_has(tmp_path):
    model = toys.pointwise()
    images = np.random.default_rng(2).random((5, *model.input_shape), np.float32)
    whole = faded(model, images, [0, 1, 0, 1, 1], **QUIET)
    alone = faded(model, images[3], "c1", **QUIET)
    np.testing.assert_array_equal(alone.maps, whole.maps[3])
    size = programs.advance._cache_size()
    faded(model, images[:2], 0, low=0.1, key=3, **QUIET)
    assert programs.advance._cache_size() == size
    seen = []
    faded(model, images, 0, callback=lambda step, maps, scores: seen.append(step), **QUIET)
    assert seen[-1] == 16
    assert faded(model, images, 0, checkpoint=tmp_path / "state", **QUIET).save(tmp_path).exists()
    with pytest.raises(ValueError, match="target: 0 to 1"):
        faded(model, images, 2, **QUIET)
