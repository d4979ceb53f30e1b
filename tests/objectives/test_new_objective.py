"""An objective of one's own, defined in this file: the loudest place of a channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import checks, struct
from rvis.engine import programs
from rvis.objectives import logit
from rvis.objectives.base import OfLayer
from tests import toys


@struct.dataclass
class Peak(OfLayer):
    """The mean over images of a channel's largest activation; `unit` is () or (m,)."""

    layer: str = struct.static()
    unit: jax.Array

    event_ranks: ClassVar[Mapping[str, int]] = {"unit": 0}

    def __call__(self, activations):
        return activations[self.layer][..., self.unit].max((1, 2)).mean()

    def check(self, shapes, classes):
        super().check(shapes, classes)
        checks.integers("unit", self.unit, high=shapes[self.layer][-1], what=repr(self.layer))

    def titles(self, classes):
        return np.asarray([f"peak of {u}" for u in np.ravel(self.unit)]).reshape(self.batch_shape)

    def identities(self):
        return np.asarray(self.unit)


def peak(layer, unit):
    """What a user calls."""
    return Peak(layer, jnp.asarray(checks.integers("unit", unit)))


QUICK = {"steps": 8, "image": "pixel", "transforms": (), "progress": False}


def test_its_value_is_the_largest_place():
    activations = {"conv": jnp.asarray([[[[1.0, 5.0], [3.0, 2.0]]], [[[7.0, 0.0], [1.0, 1.0]]]])}
    assert float(peak("conv", 0)(activations)) == 5.0
    assert float(peak("conv", 1)(activations)) == 3.0


def test_many_are_one_program_and_each_is_the_same_alone():
    model = toys.pointwise()
    both = rvis.visualize(model, peak("conv", [0, 2]), **QUICK)
    assert list(both.labels) == ["peak of 0", "peak of 2"]
    assert (both.scores[:, -1] > both.scores[:, 0]).all()
    size = programs.advance._cache_size()
    alone = rvis.visualize(model, peak("conv", 2), **QUICK)
    np.testing.assert_array_equal(alone.images, both.images[1])
    rvis.visualize(model, peak("conv", [1, 3]), **QUICK)
    assert programs.advance._cache_size() <= size + 1


def test_it_adds_to_others_and_is_a_target_elsewhere():
    model = toys.pointwise()
    found = rvis.visualize(model, 2 * peak("relu", 1) - logit(0), **QUICK)
    assert found.labels == "2 × peak of 1 − c0"
    image = np.full((6, 8, 3), 0.5, np.float32)
    heat = rvis.attribution.gradient(model, image, peak("relu", 1), progress=False)
    assert heat.maps.shape == (6, 8, 3)


def test_a_unit_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="^unit: 0 to 3"):
        rvis.visualize(toys.pointwise(), peak("relu", 4), **QUICK)
