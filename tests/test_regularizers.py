"""rvis.regularizers: penalties are the sums that were worked out by hand, with usable gradients."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import regularizers
from rvis.regularizers import alpha_norm, blur, distance, l1, total_variation

# A right triangle of differences 3 and 4 at the corner, 5 beyond it, in tenths.
CORNER = [[0.0, 0.3], [0.4, 0.9]]
DOT = [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
EDGE = [[1.0, 0.0, 0.0]]

BY_HAND = {
    "tv of a corner": (total_variation(1), CORNER, 0.3 + 0.4 + 0.6 + 0.5),
    "tv of a dot": (total_variation(1), DOT, 4.0),
    "tv of a row": (total_variation(1), EDGE, 1.0),
    "isotropic tv of a corner": (total_variation(1, beta=1), CORNER, 0.5 + 0.6 + 0.5),
    "isotropic tv of a dot": (total_variation(1, beta=1), DOT, 2 + np.sqrt(2)),
    "squared tv of a corner": (total_variation(1, beta=2), CORNER, 0.25 + 0.36 + 0.25),
    "tv of power 3": (total_variation(1, beta=3), CORNER, 0.125 + 0.216 + 0.125),
    "l1 about grey": (l1(1), CORNER, 0.5 + 0.2 + 0.1 + 0.4),
    "l1 about black": (l1(1, about=0), CORNER, 1.6),
    "alpha 6": (alpha_norm(1), CORNER, 0.5**6 + 0.2**6 + 0.1**6 + 0.4**6),
    "alpha 1": (alpha_norm(1, alpha=1), CORNER, 1.2),
    "distance to black": (distance(1, np.zeros((2, 2, 1))), CORNER, 0.09 + 0.16 + 0.81),
    "distance to an image": (
        distance(2, np.array([[0.0, 0.5], [0.5, 0.5]])[..., None]),
        CORNER,
        2 * (0 + 0.04 + 0.01 + 0.16),
    ),
    "distance where it counts": (
        distance(1, np.zeros((2, 2, 1)), [[1.0, 0.0], [0.0, 0.5]]),
        CORNER,
        (0.5 * 0.9) ** 2,
    ),
    # The dot becomes .2, its neighbours .1; at the borders nothing differs, as 0 is repeated.
    "blur of a dot": (blur(1), DOT, (0.8**2 + 8 * 0.1**2) / 2),
    # Rows above and below repeat the row: (1.5·left + 2·middle + 1.5·right) / 5, left again 1.
    "blur of a row": (blur(1), EDGE, (0.3**2 + 0.3**2) / 2),
}
PENALTIES = {
    "tv": total_variation(0.7),
    "tv 1": total_variation(0.7, beta=1),
    "tv 2.5": total_variation(0.7, beta=2.5),
    "l1": l1(0.7),
    "alpha": alpha_norm(0.7),
    "alpha 1": alpha_norm(0.7, alpha=1),
    "blur": blur(0.7),
}
penalties = pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES.keys())
SMOOTH = {name: penalty for name, penalty in PENALTIES.items() if name != "blur"}


evaluate = jax.jit(lambda penalty, images: penalty(images))
gradient = jax.jit(jax.grad(lambda images, penalty: penalty(images)))


def grey(rows: list[list[float]]) -> np.ndarray:
    return np.asarray(rows, np.float32)[None, :, :, None]


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.mark.parametrize(("penalty", "rows", "wanted"), BY_HAND.values(), ids=BY_HAND.keys())
def test_values_by_hand(penalty, rows, wanted):
    np.testing.assert_allclose(evaluate(penalty, grey(rows)), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "factor"),
    [(total_variation, 3), (l1, 3), (alpha_norm, 3), (blur, 3)],
    ids=["tv", "l1", "alpha", "blur"],
)
def test_channels_are_summed(make, factor):
    one = evaluate(make(1.0), grey(CORNER))
    three = evaluate(make(1.0), np.tile(grey(CORNER), (1, 1, 1, 3)))
    np.testing.assert_allclose(three, factor * one, rtol=1e-6)


@penalties
def test_images_are_averaged(penalty):
    images = random(4, 5, 6, 3)
    alone = [evaluate(penalty, image[None]) for image in images]
    np.testing.assert_allclose(evaluate(penalty, images), np.mean(alone), rtol=1e-5)


@penalties
def test_the_weight_multiplies(penalty):
    images = random(4, 5, 6, 3)
    twice = penalty.replace(weight=2 * penalty.weight)
    found, once = evaluate(twice, images), evaluate(penalty, images)
    np.testing.assert_allclose(found, 2 * np.asarray(once), rtol=1e-6)


@pytest.mark.parametrize("penalty", SMOOTH.values(), ids=SMOOTH.keys())
def test_gradients_are_finite_differences(penalty):
    image = random(2, 5, 6, 1)
    direction = np.random.default_rng(1).standard_normal(image.shape, np.float32)
    step = np.float32(1e-3) * direction
    found = np.vdot(gradient(image, penalty), direction)
    more, less = evaluate(penalty, image + step), evaluate(penalty, image - step)
    wanted = (float(more) - float(less)) / 2e-3
    np.testing.assert_allclose(found, wanted, rtol=0.02, atol=2e-3)


def test_the_gradient_of_blur_is_what_blurring_takes_away():
    image = random(1, 5, 6, 3)
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    kernel = np.array([[0.5, 0.5, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 0.5]]) / 5
    blurred = sum(
        kernel[i, j] * padded[:, i : i + 5, j : j + 6] for i in range(3) for j in range(3)
    )
    np.testing.assert_allclose(gradient(image, blur(0.7)), 0.7 * (image - blurred), atol=1e-6)


@penalties
@pytest.mark.parametrize("level", [0.0, 0.2, 0.5, 1.0])
def test_gradients_are_finite_on_flat_images(penalty, level):
    assert np.isfinite(gradient(np.full((1, 4, 4, 3), level, np.float32), penalty)).all()


@penalties
def test_flat_grey_is_at_rest(penalty):
    flat = np.full((1, 4, 4, 3), 0.5, np.float32)
    np.testing.assert_allclose(gradient(flat, penalty), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "sweep"),
    [
        (total_variation, [(0.1,), (2,)]),
        (total_variation, [(0.1, 1), (0.1, 2.5)]),
        (alpha_norm, [(1, 6), (1, 2.5)]),
        (l1, [(1,), (0.5, 0.2)]),
        (blur, [(1,), (0.5,)]),
    ],
    ids=["tv", "beta", "alpha", "l1", "blur"],
)
def test_sweeping_a_number_does_not_retrace(make, sweep):
    traces = []

    @jax.jit
    def evaluate(penalty: regularizers.Regularizer) -> jax.Array:
        traces.append(penalty)
        return penalty(jnp.ones((1, 3, 3, 1)))

    for arguments in sweep:
        evaluate(make(*arguments))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [*itertools.combinations([total_variation(1), blur(1), l1(1), alpha_norm(1)], 2)],
)
def test_kinds_have_structures_of_their_own(one, other):
    # Where two structures are equal, `jit` may run the program of the one for the other.
    assert jax.tree.structure(one) != jax.tree.structure(other)


def test_many_weights_are_one_vmap():
    image = grey(CORNER)
    many = jax.vmap(lambda weight: l1(0).replace(weight=weight)(image))(jnp.array([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(many, [0, 1.2, 2.4], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: total_variation(-1), ValueError, "weight: .*-1"),
        (lambda: l1(float("nan")), ValueError, "weight: .*nan"),
        (lambda: blur(float("inf")), ValueError, "weight: .*inf"),
        (lambda: blur("1"), TypeError, "weight: a number.*'1'"),
        (lambda: total_variation(1, beta=0.5), ValueError, r"beta: a number in \[1, 1000\].*0.5"),
        (lambda: alpha_norm(1, alpha=0), ValueError, "alpha: .*0"),
        (lambda: l1(1)(np.ones((4, 4, 3))), ValueError, r"images: .*\(4, 4, 3\)"),
        (lambda: blur(1)(np.ones((4, 4, 3))), ValueError, r"images: .*\(4, 4, 3\)"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
