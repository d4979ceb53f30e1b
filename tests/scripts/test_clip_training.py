"""Scenes and training: pictures and captions tell the same facts, and the loss is the paper's."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import clip
from rvis.clip.model import unit
from rvis.clip.tokenizer import Words
from scripts.clip_scenes import scenes, training
from scripts.clip_scenes.training import (
    Recipe,
    augment,
    contrastive_loss,
    perturb,
    train,
    zero_shot,
)

TINY = clip.Config(
    image_size=16, patch=8, width=8, layers=1, heads=2, text_width=8, text_layers=1, text_heads=2,
    context=16, vocabulary=3, projection=8, pool="mean",
)  # fmt: skip
SOME = scenes.generate(300, seed=5)


@pytest.mark.parametrize("alike", [2, 4, 5])
def test_scenes_that_are_alike_differ_in_one_fact(alike):
    facts = scenes.draw_facts(np.random.default_rng(0), 40 * alike, alike=alike)
    assert not scenes.combinations(facts) & set(scenes.HELD_OUT)
    groups = {fact: values.reshape(-1, alike) for fact, values in facts.items()}
    kinds = {fact: [len(set(group)) for group in rows] for fact, rows in groups.items()}
    for fact in ("size", "count", "background"):
        assert set(kinds[fact]) == {1}
    several = np.stack([kinds[fact] for fact in ("colour", "shape", "position")])
    assert (np.sort(several, 0) == [[1], [1], [alike]]).all()
    assert 0.3 < (several[1] > 1).mean() < 0.7


def test_the_same_arguments_give_the_same_scenes():
    again = scenes.generate(300, seed=5)
    assert again.captions == SOME.captions
    np.testing.assert_array_equal(again.images, SOME.images)
    parts = scenes.stream(4, seed=5)
    first, second = next(parts), next(parts)
    assert first.captions != second.captions
    assert second.captions == scenes.generate(4, seed=5, step=1).captions


def test_held_out_combinations_are_never_drawn_for_training():
    held_out = set(scenes.HELD_OUT)
    assert len(held_out) == 48
    rng = np.random.default_rng(0)
    assert not scenes.combinations(scenes.draw_facts(rng, 5000)) & held_out
    assert scenes.combinations(scenes.draw_facts(rng, 2000, held_out=True)) == held_out
    assert scenes.combinations(scenes.draw_facts(rng, 9000, held_out=None)) > held_out
    some = scenes.generate(300, seed=1, size=16, held_out=True)
    assert scenes.combinations(some.facts) <= held_out
    assert not scenes.combinations(SOME.facts) & held_out


def test_two_facts_of_a_held_out_combination_tell_nothing_of_the_third():
    for one, other in ((0, 1), (0, 2), (1, 2)):
        seen = [(values[one], values[other]) for values in scenes.HELD_OUT]
        assert len(set(seen)) == len(seen)


def test_pictures_show_the_facts():
    """Colour, place, count and ground, read off the pixels."""
    assert SOME.images.min() >= 0 and SOME.images.max() <= 1
    palette = np.asarray([rgb for rgb, _ in scenes.COLOURS.values()])
    grounds = np.asarray(list(scenes.BACKGROUNDS.values()))
    for i in range(len(SOME)):
        image, mask = SOME.images[i], SOME.masks[i]
        colour = np.median(image[mask], axis=0)
        assert np.linalg.norm(palette - colour, axis=1).argmin() == SOME.facts["colour"][i]
        ground = np.median(image[~mask], axis=0)
        assert np.linalg.norm(grounds - ground, axis=1).argmin() == SOME.facts["background"][i]
        middle = (np.argwhere(mask).mean(0) + 0.5) / 48
        row, column = (middle > 0.36).astype(int) + (middle > 0.64)
        assert 3 * row + column == SOME.facts["position"][i]
        assert not mask[0].any() and not mask[:, 0].any()


def test_shapes_differ_and_are_smooth():
    n = len(scenes.SHAPES)
    facts = {fact: np.zeros(n, int) for fact in scenes.VALUES} | {"shape": np.arange(n)}
    facts |= {"size": np.full(n, 2), "position": np.full(n, 4)}
    images, masks = scenes.draw(np.random.default_rng(0), facts)
    areas = masks.reshape(n, -1).sum(1) / (0.21 * 48) ** 2
    # π·.95², 1.7², 3√3·.58², a star, a cross, 4π·.74·.24, within what jitter of the size allows.
    expected = np.asarray([2.84, 2.89, 1.75, 1.69, 2.15, 2.23])
    assert (np.abs(areas / expected - 1) < 0.22).all()
    edges = (images[..., 0] > 0.87) & (images[..., 0] < 0.92)
    assert edges.reshape(n, -1).any(1).all()


def test_captions_are_words_of_the_vocabulary_and_tell_the_facts():
    words = set(scenes.vocabulary())
    for i, text in enumerate(SOME.captions):
        assert set(text.split()) <= words and len(text.split()) <= 14
        facts = {fact: scenes.VALUES[fact][SOME.facts[fact][i]] for fact in SOME.facts}
        named = any(name in text for name in scenes.COLOURS[facts["colour"]][1])
        assert named == SOME.told["colour"][i]
        assert (facts["background"] in text) == SOME.told["background"][i]
        placed = any(text.find(phrase) > 0 for phrase in scenes.POSITIONS[facts["position"]])
        assert placed >= SOME.told["position"][i]
        first = text.split()[0]
        assert (first in ("a", "an", "one")) == (facts["count"] == "one")


def test_agreement_is_what_the_captions_say():
    true = scenes.agreement(SOME.told, SOME.facts, SOME.facts)
    assert true.diagonal().all() and 0 < true.mean() < 0.05
    for i, j in zip(*np.nonzero(true), strict=True):
        told = [fact for fact in SOME.facts if SOME.told[fact][j]]
        assert all(SOME.facts[fact][i] == SOME.facts[fact][j] for fact in told)
    doubled = {fact: np.tile(values, 2) for fact, values in SOME.facts.items()}
    twice = scenes.agreement({f: np.tile(v, 2) for f, v in SOME.told.items()}, doubled, doubled)
    n = len(SOME)
    assert twice[np.arange(n), np.arange(n) + n].all()


def test_the_loss_by_hand():
    images, texts = jnp.asarray([[2.0, 0], [0, 3]]), jnp.asarray([[1.0, 0], [1, 1]])
    cosines = np.asarray([[1, np.sqrt(0.5)], [0, np.sqrt(0.5)]]) * 2
    rows = cosines - np.log(np.exp(cosines).sum(1, keepdims=True))
    columns = cosines - np.log(np.exp(cosines).sum(0, keepdims=True))
    expected = -(np.trace(rows) + np.trace(columns)) / 4
    scale = jnp.log(2.0)
    loss, right = jax.jit(contrastive_loss)(images, texts, scale, jnp.eye(2, dtype=bool))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert right == 1.0


def test_true_captions_of_others_are_no_mistakes():
    """Two copies of a pair cost as much as one, and have its gradient."""
    rng = np.random.default_rng(0)
    images, texts = (jnp.asarray(rng.standard_normal((3, 4)), jnp.float32) for _ in range(2))
    rows = jnp.asarray([0, 1, 2, 2])
    agreement = jnp.eye(4, dtype=bool).at[2, 3].set(True).at[3, 2].set(True)
    grad = jax.jit(jax.value_and_grad(lambda x, a: contrastive_loss(x, texts[rows], 1.0, a)[0]))
    value, slope = grad(images[rows], agreement)
    assert np.isfinite(slope).all()
    plain, _ = grad(images[rows], jnp.eye(4, dtype=bool))
    assert plain > value
    np.testing.assert_allclose(slope[2], slope[3], atol=1e-6)


def test_augmentation_keeps_its_bounds():
    changed = jax.jit(augment, static_argnums=2)
    still = Recipe(noise=0, colour=0, shift=0)
    images = jnp.asarray(SOME.images[:4])
    np.testing.assert_allclose(changed(jax.random.key(0), images, still), images, atol=1e-6)
    moved = changed(jax.random.key(0), images, Recipe(noise=0.3, colour=0.1, shift=2))
    assert moved.shape == images.shape and moved.min() >= 0 and moved.max() <= 1


def start():
    return clip.untrained(TINY, words=scenes.vocabulary())


ONE = Words(("a",), TINY.context)
"""A vocabulary that lacks what captions say."""
RECIPE = Recipe(steps=40, batch_size=16, learning_rate=3e-3, warmup=4)


@pytest.fixture(scope="module")
def trained():
    told = []

    def note(step, figures):
        told.append((step, figures))

    return train(start(), RECIPE, every=10, callback=note, progress=False), told


def test_training_lowers_the_loss(trained):
    losses = [figures["loss"] for _, figures in trained[1]]
    assert [step for step, _ in trained[1]] == [10, 20, 30, 40] and losses[-1] < losses[0] - 0.1
    accuracy = zero_shot(trained[0], count=64, held_out=False)
    assert set(accuracy) == set(scenes.VALUES)
    assert all(0 <= share <= 1 for share in accuracy.values())


def test_an_interrupted_run_goes_on_to_the_same_weights(trained, tmp_path):
    options = {"every": 10, "checkpoint": tmp_path / "state", "progress": False}
    train(start(), RECIPE, callback=lambda step, figures: step == 20, **options)
    steps = []
    again = train(start(), RECIPE, callback=lambda step, figures: steps.append(step), **options)
    assert steps == [30, 40]
    for ours, theirs in zip(
        jax.tree.leaves(again.state), jax.tree.leaves(trained[0].state), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match="checkpoint"):
        train(start(), dataclasses.replace(RECIPE, noise=0.0), **options)


def test_adversarial_images_are_less_like_their_captions_and_near():
    some, rng = scenes.generate(12, seed=9, size=16), np.random.default_rng(0)
    image, texts = start().image, jnp.asarray(rng.standard_normal((12, 8)), jnp.float32)
    images, none = jnp.asarray(some.images), jnp.zeros((12, 12), bool)
    recipe = Recipe(eps=0.5, attack_steps=5)
    attack = jax.jit(perturb, static_argnums=6)

    def losses(images, agreement):
        logits = 5 * unit(image.apply(image.params, images)) @ unit(texts).T
        logits = jnp.where(agreement & ~jnp.eye(12, dtype=bool), -jnp.inf, logits)
        return -jnp.diagonal(jax.nn.log_softmax(logits))

    found = attack(jax.random.key(0), image, images, texts, none, jnp.log(5.0), recipe)
    assert (losses(found, none) > losses(images, none)).all()
    lengths = np.linalg.norm(np.asarray(found - images).reshape(12, -1), axis=1)
    assert lengths.max() <= 0.5 + 1e-5 and found.min() >= 0 and found.max() <= 1
    # Texts that are all true leave nothing to be misled to.
    true = none.at[0].set(True)
    freed = attack(jax.random.key(0), image, images, texts, true, jnp.log(5.0), recipe)
    assert losses(freed, true)[0] == 0 and np.isfinite(freed).all()
    np.testing.assert_array_equal(freed[1:], found[1:])


def test_training_sees_adversarial_images(trained):
    recipe = dataclasses.replace(RECIPE, steps=10, eps=0.5)
    told = []
    train(start(), recipe, every=10, callback=lambda step, f: told.append(f), progress=False)
    assert told[0]["loss"] > trained[1][0][1]["loss"]


def test_weights_that_are_no_numbers_are_an_error(monkeypatch):
    update = training._update

    def losing(state, *arguments, **options):
        state, figures = update(state, *arguments, **options)
        lost = jax.tree.map(lambda leaf: leaf * np.nan, state.variables)
        return (state.replace(variables=lost) if int(state.step) == 10 else state), figures

    monkeypatch.setattr(training, "_update", losing)
    with pytest.raises(FloatingPointError, match="weights: became NaN or infinite by step 10"):
        train(start(), RECIPE, every=10, progress=False)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: train(dataclasses.replace(start(), tokenizer=None), RECIPE), ValueError, "clip"),
        (lambda: train(dataclasses.replace(start(), tokenizer=ONE), RECIPE), ValueError, "^clip: "),
        (lambda: train(start(), RECIPE, every=0), ValueError, "every"),
        (lambda: Recipe(steps=0), ValueError, "steps"),
        (lambda: Recipe(noise=2), ValueError, "noise"),
        (lambda: Recipe(shift=0.5), TypeError, "shift"),
        (lambda: Recipe(eps=-1), ValueError, "eps"),
        (lambda: scenes.generate(0), ValueError, "count"),
        (lambda: scenes.generate(1, seed=-1), ValueError, "seed"),
        (lambda: scenes.generate(1, alike=6), ValueError, "alike"),
        (lambda: scenes.generate(1, alike=2, held_out=True), ValueError, "alike"),
        (lambda: scenes.generate(1, size=8), ValueError, "size"),
    ],
)
def test_refusals_name_the_argument(call, error, says):
    with pytest.raises(error, match=says):
        call()
