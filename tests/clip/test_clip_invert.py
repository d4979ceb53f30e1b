"""Inversion of texts: it climbs, repeats itself, mixes towers, and compiles once."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from rvis import clip, engine
from rvis.clip.invert import _stages
from rvis.engine import programs
from rvis.optimizers import adam
from tests.interrupts import interrupted

TINY = clip.Config(
    image_size=12, patch=4, width=8, layers=1, heads=2, text_width=8, text_layers=1, text_heads=2,
    context=6, vocabulary=3, projection=5,
)  # fmt: skip
WORDS = ("a", "red", "blue", "circle", "square")
TEXTS = ["a red circle", "a blue square", "red"]
ONE = clip.untrained(TINY, words=WORDS)
QUICK = {"sizes": 12, "steps": 24, "copies": 2, "samples": 1, "progress": False}


@pytest.fixture(scope="module")
def three():
    return clip.invert(ONE, TEXTS, **QUICK)


def test_pictures_come_nearer_to_their_texts(three):
    assert three.images.shape == (3, 12, 12, 3) and three.scores.shape == (3, 24)
    assert three.labels.tolist() == TEXTS
    assert 0 <= three.images.min() and three.images.max() <= 1
    grey = np.full((1, 12, 12, 3), 0.5, np.float32)
    before = (clip.encode_image(ONE, grey) @ clip.encode_text(ONE, TEXTS).T)[0]
    assert (three.similarities > before).all()


def test_similarities_are_those_of_the_pictures(three):
    seen = clip.encode_image(ONE, three.images) @ clip.encode_text(ONE, TEXTS).T
    np.testing.assert_allclose(three.similarities, seen.diagonal(), atol=1e-5)


def test_a_text_is_the_same_alone_and_in_any_batch(three):
    alone = clip.invert(ONE, TEXTS[1], **QUICK)
    np.testing.assert_array_equal(alone.images, three.images[1])
    assert alone.images.shape == (12, 12, 3) and alone.similarities.shape == ()
    swapped = clip.invert(ONE, TEXTS[::-1], chunk=4, **QUICK)
    np.testing.assert_array_equal(swapped.images[::-1], three.images)


def test_pictures_grow_through_sizes():
    assert _stages(None, [ONE], False, 340) == [(4, 90), (8, 90), (12, 160)]
    assert _stages((4, 8, 12), [ONE], True, 340) == [(4, 90), (8, 90), (12, 160)]
    assert _stages(None, [ONE], True, 7) == [(12, 7)]


def test_an_interrupted_inversion_goes_on_and_a_callback_ends_one(tmp_path, monkeypatch):
    options = {**QUICK, "sizes": (6, 12), "steps": 8}
    whole = clip.invert(ONE, TEXTS[:2], **options)
    assert whole.config["sizes"] == [6, 12] and whole.images.shape == (2, 12, 12, 3)
    assert whole.scores.shape == (2, 8)
    state = tmp_path / "state"
    with interrupted(monkeypatch, 2), pytest.raises(KeyboardInterrupt):
        clip.invert(ONE, TEXTS[:2], checkpoint=state, **options)
    with pytest.raises(ValueError, match="checkpoint: .* other arguments"):
        clip.invert(ONE, TEXTS[1:], checkpoint=state, **options)
    again = clip.invert(ONE, TEXTS[:2], checkpoint=state, **options)
    np.testing.assert_array_equal(again.images, whole.images)
    np.testing.assert_array_equal(again.scores, whole.scores)
    assert not state.exists()
    seen = []

    def watch(step, pictures, scores):
        seen.append((step, pictures.shape, scores.shape))
        return step == 1

    found = clip.invert(ONE, TEXTS[:2], callback=watch, **options)
    assert seen == [(1, (2, 6, 6, 3), (2, 1))]
    assert found.images.shape == (2, 12, 12, 3) and found.scores.shape == (2, 1)


def test_samples_differ_and_the_first_is_the_only_one(three):
    pair = clip.invert(ONE, TEXTS[:2], **{**QUICK, "samples": 2})
    assert pair.images.shape == (2, 2, 12, 12, 3) and pair.labels.shape == (2, 2)
    np.testing.assert_array_equal(pair.images[:, 0], three.images[:2])
    assert np.abs(pair.images[:, 0] - pair.images[:, 1]).max() > 0.01
    other = clip.invert(ONE, TEXTS[0], key=1, **QUICK)
    assert np.abs(other.images - three.images[0]).max() > 0.01


def test_by_default_the_nearest_of_four_comes_back():
    four, best = (clip.invert(ONE, TEXTS, **{**QUICK, "samples": samples}) for samples in (4, None))
    assert best.images.shape == (3, 12, 12, 3) and best.labels.tolist() == TEXTS
    np.testing.assert_array_equal(best.similarities, four.similarities.max(1))
    chosen = four.similarities.argmax(1)
    assert set(chosen) - {0}  # else a first one would do
    np.testing.assert_array_equal(best.images, four.images[np.arange(3), chosen])
    np.testing.assert_array_equal(best.scores, four.scores[np.arange(3), chosen])


@pytest.mark.parametrize("samples", [None, 2])
def test_the_card_holds_the_samples_that_were_asked_for(samples):
    found = clip.invert(ONE, "red", **{**QUICK, "steps": 1, "samples": samples})
    assert found.config["samples"] == samples


def test_other_texts_weights_and_towers_of_a_kind_trace_nothing_anew(three):
    before = programs.advance._cache_size()
    clip.invert(ONE, ["blue", "a circle"], tv=0.1, key=3, **QUICK)
    clip.invert(clip.untrained(TINY, words=WORDS, key=2), "square", **QUICK)
    assert programs.advance._cache_size() == before


def test_a_negative_text_is_kept_away_from(three):
    found = clip.invert(ONE, TEXTS[0], negative="blue", negative_weight=2.0, **QUICK)
    blue = clip.encode_text(ONE, "blue")
    ours, plain = (clip.encode_image(ONE, x) @ blue for x in (found.images, three.images[0]))
    assert ours.item() < plain.item()


def test_without_augmentation_the_score_is_the_cosine():
    options = {"augment": None, "tv": 0.0, "sizes": 12, "samples": 1, "progress": False}
    found = clip.invert(ONE, TEXTS[:2], steps=8, **options)
    again = clip.invert(ONE, TEXTS[:2], steps=9, **options)
    np.testing.assert_allclose(again.scores[:, 8], found.similarities, atol=1e-5)
    np.testing.assert_allclose(again.scores[:, :8], found.scores, atol=1e-5)
    assert (np.diff(found.scores[:, -4:]) > 0).all()


@pytest.mark.parametrize("image", ["fourier", pytest.param("pixel", marks=pytest.mark.slow)])
def test_a_start_is_kept_where_nothing_moves(image):
    rng = np.random.default_rng(0)
    start = rng.uniform(0.2, 0.8, (12, 12, 3)).astype(np.float32)
    options = {"steps": 2, "copies": 2, "progress": False}
    found = clip.invert(ONE, TEXTS[0], start=start, image=image, optimizer=adam(0.0), **options)
    np.testing.assert_allclose(found.images, start, atol=1e-4)


@pytest.mark.slow
def test_an_ensemble_climbs_for_both():
    large = clip.untrained(dataclasses.replace(TINY, image_size=16), words=WORDS, key=1)
    found = clip.invert([ONE, large], TEXTS[0], **{**QUICK, "sizes": 16})
    assert found.images.shape == (16, 16, 3)
    small = np.asarray(jax.image.resize(found.images, (12, 12, 3), "linear"))
    cosines = [
        (clip.encode_image(one, picture) @ clip.encode_text(one, TEXTS[0])).item()
        for one, picture in ((ONE, small), (large, found.images))
    ]
    np.testing.assert_allclose(found.similarities, np.mean(cosines), atol=1e-4)
    assert found.scores[-4:].mean() > found.scores[:4].mean()


def test_copies_that_do_not_differ_are_as_good_as_one():
    still = clip.Augment(0, 0, (1, 1), 1, 0, 0)
    options = {"image": "pixel", "sizes": 12, "steps": 4, "progress": False}
    one = clip.invert(ONE, TEXTS[0], augment=None, **options)
    three = clip.invert(ONE, TEXTS[0], augment=still, copies=3, **options)
    np.testing.assert_allclose(one.images, three.images, atol=1e-4)


def test_augmentations_hash_by_value():
    assert hash(clip.Augment(30, colour=1)) == hash(clip.Augment(30.0, colour=1.0))


def test_augmented_copies():
    picture = np.full((12, 12, 3), 0.5, np.float32)
    key = jax.random.key(0)
    still = clip.Augment(0, 0, (1, 1), 1, 0, 0)
    moved, coloured = clip.Augment(colour=0, noise=0), clip.Augment(colour=0.5, noise=0)
    noisy = clip.Augment(colour=0, noise=0.2)
    looks = jax.jit(lambda *given: [a(*given) for a in (still, moved, coloured, noisy)])
    kept, grey, tinted, rough = (np.asarray(look) for look in looks(key, picture))
    np.testing.assert_allclose(kept, picture, atol=1e-6)
    # Grey stays grey wherever it is moved: what is outside is grey too.
    np.testing.assert_allclose(grey, picture, atol=1e-5)
    assert np.ptp(tinted, axis=(0, 1)).max() < 1e-5 and np.ptp(tinted[0, 0]) > 0.01
    assert abs(np.std(rough) - 0.2) < 0.03


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"texts": []}, ValueError, "texts"),
        ({"texts": "green"}, ValueError, "texts: .*green"),
        ({"clip": 3}, TypeError, "clip: an rvis.clip.CLIP"),
        ({"clip": "scenes"}, TypeError, "clip: an rvis.clip.CLIP"),
        ({"clip": ()}, TypeError, "clip: a CLIP"),
        ({"templates": ()}, ValueError, "templates"),
        ({"negative": 3}, TypeError, "negative"),
        ({"negative": ["a", "red"]}, ValueError, "negative"),
        ({"negative_weight": -1}, ValueError, "negative_weight"),
        ({"samples": 0}, ValueError, "samples"),
        ({"steps": 0}, ValueError, "steps"),
        ({"copies": 0}, ValueError, "copies"),
        ({"sizes": ()}, ValueError, "sizes"),
        ({"sizes": 1}, ValueError, "sizes: sides of 4 .* to 12"),
        ({"sizes": [3, 12]}, ValueError, "sizes: sides of 4 .* given 3"),
        ({"sizes": [99]}, ValueError, "sizes: sides of 4 .* given 99"),
        ({"callback": 1}, TypeError, "callback"),
        ({"sizes": 2.5}, TypeError, "sizes"),
        ({"image": "cppn"}, ValueError, "sizes: one size .*cppn"),
        ({"image": "rgba"}, ValueError, "image"),
        ({"image": "fuorier"}, ValueError, "image: .*'fourier'"),
        ({"start": np.ones((4, 4, 1), np.float32)}, ValueError, "start"),
        ({"start": np.ones((3, 4, 4, 3), np.float32)}, ValueError, "start"),
        ({"augment": True}, TypeError, "augment"),
        ({"optimizer": 0.1}, TypeError, "optimizer"),
        ({"tv": -1}, ValueError, "tv"),
        ({"chunk": 0}, ValueError, "chunk"),
    ],
)
def test_refusals_name_the_argument(arguments, error, says, monkeypatch):
    monkeypatch.setattr(engine, "run", lambda *a, **k: pytest.fail("it ran"))
    given = {"clip": ONE, "texts": TEXTS[0], "progress": False} | arguments
    with pytest.raises(error, match=says):
        clip.invert(given.pop("clip"), given.pop("texts"), **given)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"degrees": 200}, "degrees"), ({"zoom": (1.2, 0.7)}, "zoom"), ({"noise": -1}, "noise")],
)
def test_augmentations_refuse_by_name(arguments, says):
    with pytest.raises(ValueError, match=says):
        clip.Augment(**arguments)
