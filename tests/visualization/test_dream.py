"""DeepDream: against a loop written out, tiles against the whole, any size, and refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import engine, images, objectives, optimizers, projections
from rvis.ascent import Ascent, Problem
from rvis.ascent.tiles import Tiles
from rvis.engine import programs
from rvis.visualization import dream
from tests import toys
from tests.interrupts import interrupted

MODEL = toys.pointwise(size=(16, 12))
PHOTO = np.random.default_rng(0).uniform(0.2, 0.8, (33, 21, 3)).astype(np.float32)
QUICK = {"octaves": 2, "steps": 3, "progress": False}


def test_against_a_loop_of_its_own():
    """Pointwise layers and a mean over places do not see where a roll puts a pixel."""

    @jax.jit
    def step(x):
        g = jax.grad(lambda x: jnp.square(jax.nn.relu(x @ MODEL.params["conv"])).mean())(x)
        return jnp.clip(x + 1.5 / 255 * g / jnp.abs(g).mean(), 0, 1)

    detail = 0
    for size in ((24, 15), (33, 21)):
        base = jax.image.resize(PHOTO, (*size, 3), "linear")
        if np.ndim(detail):
            detail = jax.image.resize(detail, (*size, 3), "linear")
        x = jnp.clip(base + detail, 0, 1)
        for _ in range(3):
            x = step(x)
        detail = x - base
    found = dream.deepdream(MODEL, PHOTO, "relu", **QUICK)
    np.testing.assert_allclose(found.images, PHOTO + detail, atol=1e-5)


def test_the_score_rises():
    scores = dream.deepdream(MODEL, PHOTO, objectives.channel("conv", 1), **QUICK).scores
    assert scores.shape == (6,) and scores[2] > scores[0] and scores[5] > scores[3]


def test_tiles_add_up_to_the_whole():
    """The mean over places is that over tiles which divide the image, of any canvas, evenly."""
    start = jax.random.uniform(jax.random.key(1), (1, 1, 16, 12, 3))
    around = np.pad(start, ((0, 0), (0, 0), (0, 4), (0, 3), (0, 0)), constant_values=0.7)
    found = []
    for begun, tiles in (
        (start, None),
        (around, Tiles((4, 6), jnp.asarray([16, 12]), jnp.asarray(3))),
    ):
        spec = images.Pixel(begun.shape[2:])
        algorithm = Ascent(spec, optimizers.steepest(0.1), tiles=tiles)
        problem = Problem(objectives.layer("relu"), (), projections.Box()).broadcast(1)
        keys = jax.random.split(jax.random.key(0), 1)
        options = {"steps": 3, "pixels": algorithm.pixels, "starts": begun, "progress": False}
        found.append(engine.run(algorithm, toys.pointwise(size=(16, 12)), problem, keys, **options))
    whole, tiled = found
    np.testing.assert_allclose(tiled.result[:, :, :16, :12], whole.result, atol=1e-6)
    np.testing.assert_array_equal(tiled.result[:, :, 16:], around[:, :, 16:])
    np.testing.assert_allclose(tiled.info.score, whole.info.score, rtol=1e-5)


def test_an_image_that_fits_into_a_tile_is_seen_whole():
    """The unit in the middle alone moves, which shifted tiles would look for elsewhere."""
    middle = objectives.neuron("conv", 1)
    options = {**QUICK, "octaves": 1, "jitter": 0}
    found = dream.deepdream(MODEL, PHOTO, middle, tile=len(PHOTO), **options)
    moved = np.argwhere((found.images != PHOTO).any(-1))
    np.testing.assert_array_equal(moved, [[16, 10]])


def test_octaves_of_a_large_image_share_a_program():
    whole = dream.deepdream(MODEL, PHOTO, "relu", tile=64, **QUICK)
    before = programs.advance._cache_size(), dream._resized._cache_size()
    tiled = dream.deepdream(MODEL, PHOTO, "relu", tile=16, **QUICK)
    assert programs.advance._cache_size() <= before[0] + 1
    assert dream._resized._cache_size() <= before[1] + 1
    # Overlapping tiles weigh a few places twice, so that only the pattern is the same.
    moved = [r.images - PHOTO for r in (whole, tiled)]
    assert np.corrcoef(moved[0].ravel(), moved[1].ravel())[0, 1] > 0.95


def test_a_batch_is_its_images():
    both = dream.deepdream(MODEL, np.stack([PHOTO, PHOTO[::-1]]), "relu", **QUICK)
    one = dream.deepdream(MODEL, PHOTO, "relu", **QUICK)
    np.testing.assert_array_equal(both.images[0], one.images)


def test_a_guide_pulls_towards_its_features():
    guide = np.zeros((5, 6, 3), np.float32)
    guide[..., 0] = 1
    found = dream.deepdream(MODEL, PHOTO, "conv", guide=guide, **QUICK)
    features = guide[0, 0] @ np.asarray(MODEL.params["conv"])
    before, after = (
        (x @ np.asarray(MODEL.params["conv"]) @ features).mean() for x in (PHOTO, found.images)
    )
    assert after > before


def test_zoom_enlarges_the_frame_before():
    frames = dream.zoom(
        MODEL, PHOTO, "relu", frames=3, factor=2.0, octaves=1, steps=1, step_size=0.0
    ).images
    np.testing.assert_array_equal(frames[0], PHOTO)
    expected = jax.image.resize(PHOTO, (66, 42, 3), "linear")[17:49, 11:31]
    np.testing.assert_allclose(frames[1][1:-1, 1:-1][:31, :19], expected[:31, :19], atol=0.3)
    centre = frames[1][12:21, 8:13].mean((0, 1))
    np.testing.assert_allclose(centre, PHOTO[14:19, 9:12].mean((0, 1)), atol=0.1)


def test_interrupted_dreams_go_on(tmp_path, monkeypatch):
    whole = dream.deepdream(MODEL, PHOTO, "relu", **QUICK)
    state = tmp_path / "state"
    with interrupted(monkeypatch, 2), pytest.raises(KeyboardInterrupt):
        dream.deepdream(MODEL, PHOTO, "relu", checkpoint=state, **QUICK)
    with pytest.raises(ValueError, match="checkpoint: .* other arguments"):
        dream.deepdream(MODEL, PHOTO, "relu", checkpoint=state, **{**QUICK, "steps": 4})
    with interrupted(monkeypatch, 2):  # the first octave is not dreamt again
        again = dream.deepdream(MODEL, PHOTO, "relu", checkpoint=state, **QUICK)
    np.testing.assert_array_equal(again.images, whole.images)
    np.testing.assert_array_equal(again.scores, whole.scores)
    assert not (tmp_path / "state").exists()


def test_a_callback_sees_every_step_and_ends_the_dream():
    seen = []

    def watch(step, pictures, scores):
        seen.append((step, pictures.shape, scores.shape))
        return step == 4

    found = dream.deepdream(MODEL, PHOTO, "relu", callback=watch, **{**QUICK, "octaves": 3})
    assert [step for step, *_ in seen] == [1, 2, 3, 4]
    assert [shape for _, shape, _ in seen] == [(17, 11, 3)] * 3 + [(24, 15, 3)]
    assert seen[-1][2] == found.scores.shape == (4,)
    assert found.images.shape == PHOTO.shape


def test_targets_by_class_and_one_for_each_image():
    pair = np.stack([PHOTO, PHOTO[::-1]])
    both = dream.deepdream(MODEL, pair, [1, 0], **QUICK)
    assert both.labels.shape == (2,) and both.scores.shape == (2, 6)
    one = dream.deepdream(MODEL, PHOTO, objectives.logit(1), **QUICK)
    np.testing.assert_array_equal(both.images[0], one.images)


@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        ("rleu", {}, ValueError, "target: unknown 'rleu'; did you mean 'relu'"),
        ("relu", {"octaves": 0}, ValueError, "octaves: at least 1"),
        ("relu", {"octaves": 20}, ValueError, "octaves: fewer were expected"),
        ("relu", {"scale": 1.0}, ValueError, "scale: a number above 1"),
        ("relu", {"tile": 0}, ValueError, "tile: at least 1"),
        ("relu", {"jitter": -1}, ValueError, "jitter: at least 0"),
        ("relu", {"guide": np.zeros((4, 4, 1), np.float32)}, ValueError, "guide: 3 channels"),
        (objectives.logit(0), {"guide": PHOTO}, ValueError, "guide: it was expected beside"),
        (objectives.logit([0, 1]), {}, ValueError, "target: one, or one for each of 1"),
        (3, {}, ValueError, "target: 0 to 1 of the logits"),
        ("relu", {"chunk": 0}, ValueError, "chunk: at least 1"),
        ("relu", {"callback": 3}, TypeError, "callback: a function"),
    ],
)
def test_refused(target, options, error, message):
    with pytest.raises(error, match=message):
        rvis.deepdream(MODEL, PHOTO, target, **options)
