"""One change for all images: on linear networks, whose best changes are known, and by hand."""

from __future__ import annotations

import jax
import numpy as np
import PIL.Image
import pytest

from rvis import attacks, objectives
from rvis.attacks.universal import place
from tests import toys
from tests.attacks import small

SHAPE = (6, 5, 3)
RNG = np.random.default_rng(0)
IMAGES = (0.5 + 0.2 * RNG.uniform(-1, 1, (7, *SHAPE))).astype(np.float32)
WEIGHTS = 0.1 * RNG.standard_normal((90, 2)).astype(np.float32)
MODEL = toys.linear(WEIGHTS, SHAPE)
LABELS = np.asarray(MODEL(IMAGES)).argmax(1)
SLOPE = (WEIGHTS[:, 1] - WEIGHTS[:, 0]).reshape(SHAPE)
QUIET = {"progress": False}


def universal(**options):
    options = {"eps": 0.1, "steps": 8, "target": 1, **QUIET, **options}
    return attacks.universal(MODEL, IMAGES, LABELS, **options)


def patch(model=MODEL, images=IMAGES, labels=LABELS, **options):
    options = {"size": (2, 3), "steps": 8, **QUIET, **options}
    return attacks.patch(model, images, labels, **options)


@pytest.mark.parametrize("batch", [3, 64])
@pytest.mark.parametrize(
    ("norm", "best"), [("linf", np.sign(SLOPE)), ("l2", SLOPE / np.linalg.norm(SLOPE))]
)
def test_of_a_linear_model_it_is_the_steepest_way_to_the_target(norm, best, batch):
    found = universal(norm=norm, batch_size=batch, key=3)
    np.testing.assert_allclose(found.change, 0.1 * best, atol=1e-5)
    moved = np.clip(IMAGES + found.change, 0, 1)
    np.testing.assert_allclose(found.images, moved, atol=1e-6)
    np.testing.assert_array_equal(found.success, np.asarray(MODEL(moved)).argmax(1) == 1)
    assert found.scores.shape == (8,) and found.scores[-1] > found.scores[0]


def test_what_is_fooled_draws_no_more_steps():
    # Of the first image the loss is far above the bound; the way is that of the second alone.
    weights = np.zeros((90, 3), np.float32)
    weights[:45, 1], weights[45:, 2] = 1, -1
    images = np.stack([np.full(SHAPE, 0.9), np.full(SHAPE, 0.1)]).astype(np.float32)
    found = attacks.universal(
        toys.linear(weights, SHAPE), images, [0, 1], eps=0.05, steps=4, loss="margin", **QUIET
    )
    flat = found.change.reshape(-1)
    np.testing.assert_allclose(flat[:45], -0.05, atol=1e-6)
    np.testing.assert_array_equal(flat[45:], 0)


@pytest.mark.parametrize("attack", [universal, patch])
def test_an_objective_of_ones_own_is_climbed(attack):
    own = attack(loss=-100 * objectives.channel("logits", 1))
    assert own.scores[-1] > own.scores[0] > 9  # past what bounds a loss that is known


def test_it_fools_images_that_it_has_not_seen():
    images, labels = small.images(96)
    found = attacks.universal(
        small.network(), images[:64], labels[:64], eps=0.15, steps=30, **QUIET
    )
    new, taken = images[64:], labels[64:]

    def fooled(moved):
        return (np.asarray(small.network()(moved)).argmax(1) != taken).mean()

    signs = np.sign(RNG.standard_normal(small.SHAPE)).astype(np.float32)
    assert fooled(found.apply(new)) > fooled(np.clip(new + 0.15 * signs, 0, 1)) + 0.2


@pytest.mark.parametrize("target", [None, 1])
def test_a_patch_on_a_model_that_sums_is_black_and_white(target):
    rows = np.array([[0, 0.1], [0, -0.2], [0, 0.15]], np.float32)  # by channel alone
    model, labels = toys.linear(np.tile(rows, (30, 1)), SHAPE), np.zeros(7, int)
    found = patch(model, labels=labels, target=target, loss="margin")
    np.testing.assert_allclose(found.change, np.tile([1, 0, 1], (2, 3, 1)), atol=1e-6)
    assert found.scores[-1] > found.scores[0]
    changed = (found.images != IMAGES).any(-1)
    for mask, image in zip(changed, found.images, strict=True):
        top, left = (np.flatnonzero(mask.any(axis)).min() for axis in (1, 0))
        np.testing.assert_array_equal(image[top : top + 2, left : left + 3], found.change)
        assert mask.sum() <= 6


def test_places_are_uniform_among_all():
    keys = jax.random.split(jax.random.key(0), 1500)
    top, left = np.asarray(jax.vmap(lambda key: place(key, SHAPE, (2, 3, 3)))(keys)).T
    counts = np.zeros((5, 3))
    np.add.at(counts, (top, left), 1)
    assert (np.abs(counts - 100) < 45).all()


def test_each_image_has_a_place_of_its_own_and_each_key_others():
    found = patch()
    assert len({tuple(m.ravel()) for m in (found.images != IMAGES).any(-1)}) > 1
    np.testing.assert_array_equal(found.apply(IMAGES), found.images)
    assert (found.apply(IMAGES, key=1) != found.images).any()


def test_keys_of_any_kind_draw_places():
    found = patch(key=jax.random.key(3, impl="rbg"), steps=1)
    assert ((found.images != IMAGES).any(-1).sum((1, 2)) <= 6).all()


class Stopped(Exception):
    pass


@pytest.mark.parametrize("attack", [universal, patch])
def test_resumed_equals_uninterrupted(attack, tmp_path):
    whole, seen = attack(batch_size=3, key=5), []

    def stop(step, images, losses):
        seen.append((images.shape, losses.shape))
        if step >= 4:
            raise Stopped

    with pytest.raises(Stopped):
        attack(batch_size=3, key=5, callback=stop, checkpoint=tmp_path / "c")
    again = attack(batch_size=3, key=5, checkpoint=tmp_path / "c")
    np.testing.assert_array_equal(again.change, whole.change)
    np.testing.assert_array_equal(again.images, whole.images)
    assert seen[0] == ((7, *SHAPE), (7, 1)) and not (tmp_path / "c").exists()


def test_the_change_is_saved_beside_the_images(tmp_path):
    place = patch().save(tmp_path)
    assert PIL.Image.open(place / "change.png").size == (3, 2)
    np.testing.assert_array_equal(np.load(place / "change.npy"), patch().change)
    alone = attacks.universal(MODEL, IMAGES[0], LABELS[0], eps=0.1, steps=2, **QUIET)
    assert alone.images.shape == alone.change.shape == SHAPE and alone.success.shape == ()
    alone.save(tmp_path / "alone")


@pytest.mark.parametrize(
    ("name", "attack", "options"),
    [
        ("eps", universal, {"eps": [0.1] * 7}),
        ("eps", universal, {"eps": 0}),
        ("norm", universal, {"norm": "l1"}),
        ("loss", universal, {"loss": "cross"}),
        ("step_size", universal, {"step_size": -1}),
        ("batch_size", universal, {"batch_size": 0}),
        ("size", patch, {"size": 0}),
        ("size", patch, {"size": (7, 2)}),
        ("target", patch, {"target": 9}),
    ],
)
def test_bad_arguments_are_named(name, attack, options):
    with pytest.raises((TypeError, ValueError), match=f"^{name}: "):
        attack(**options)


@pytest.mark.parametrize(
    ("attack", "options"),
    [(universal, {"size": 2}), (patch, {"eps": 0.1}), (patch, {"norm": "l2"})],
)
def test_what_the_other_attack_alone_takes_is_refused(attack, options):
    message = rf"^{attack.__name__}\(\) got an unexpected keyword argument '{next(iter(options))}'"
    with pytest.raises(TypeError, match=message):
        attack(**options)


def test_other_images_must_have_room():
    with pytest.raises(ValueError, match="^images: "):
        universal().apply(np.zeros((1, 7, 5, 3), np.float32))
    with pytest.raises(ValueError, match="^images: "):
        patch().apply(np.zeros((1, 1, 5, 3), np.float32))
    assert patch().apply(np.zeros((9, 9, 3), np.float32)).shape == (9, 9, 3)
