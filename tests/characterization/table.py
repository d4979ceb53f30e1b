"""One small call of every public function, whose results are kept in `expected.json`.

Each entry is a function of no arguments that returns named arrays; where a public name changes, its
entry is the one place to edit. Steps are few and images small, so that compiling takes most of the
time; models and shapes are shared for the sake of it.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rvis
from rvis import attacks, attribution, objectives
from rvis.analysis import deconv, metrics
from rvis.data import Dataset
from rvis.images import Fourier, estimate
from rvis.models import architectures
from rvis.objectives import channel, direction, diversity, layer, logit, neuron, probability
from rvis.post_step import blur, decay, small_norm, yosinski
from rvis.training import Adversary, Recipe
from rvis.transforms import Jitter, Noise, Rotate, Scale
from scripts.clip_scenes import scenes
from scripts.gallery.toy import toy

Arrays = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Call:
    """An entry: what is called, and how far its numbers may be from those kept.

    Attributes:
      run: gives the arrays.
      rtol: of a number's own size.
      atol: of the array's largest number, or of one where that is more.
      reason: why the tolerances are not the usual ones.
    """

    run: Callable[[], Arrays]
    rtol: float = 1e-4
    atol: float = 2e-5
    reason: str = ""


TABLE: dict[str, Call] = {}


def entry(run: Callable[[], Arrays] | None = None, **tolerance: Any) -> Any:
    """Puts a function in the table under its own name."""
    if run is None:
        assert tolerance.get("reason"), "a tolerance of its own needs a reason"
        return functools.partial(entry, **tolerance)
    assert run.__name__ not in TABLE, run.__name__
    TABLE[run.__name__] = Call(run, **tolerance)
    return run


def fields(found: Any, *names: str) -> Arrays:
    """Some attributes of a result."""
    return {name: np.asarray(getattr(found, name)) for name in names}


# What the calls are made on.

QUIET = {"progress": False}

# Adam divides a gradient by its own size, and rounding decides the sign of those that are nearly
# zero. Where the first ones are, steps of one length, not of one size a pixel, keep to it.
STEADY: dict[str, Any] = {
    "image": "pixel",
    "transforms": (),
    "optimizer": rvis.optimizers.steepest(0.5, norm="l2"),
}


@functools.cache
def digits() -> rvis.Model:
    """A network of 28-pixel grey images: convolutions and max-pools."""
    return rvis.load("mnist_cnn")


@functools.cache
def colours() -> rvis.Model:
    """A network of 32-pixel colour images: residual, with batch statistics."""
    return rvis.load("cifar10_resnet")


def smooth(count: int, shape: tuple[int, int, int], seed: int = 0, blocks: int = 4) -> np.ndarray:
    """(count, H, W, C) float32 images in [0, 1]: random patches with a little noise."""
    rng = np.random.default_rng(seed)
    height, width, channels = shape
    coarse = rng.uniform(0.1, 0.9, (count, blocks, blocks, channels))
    rows, columns = np.arange(height) * blocks // height, np.arange(width) * blocks // width
    images = coarse[:, rows][:, :, columns] + rng.normal(0, 0.02, (count, *shape))
    return images.clip(0, 1).astype(np.float32)


def strokes(count: int = 3, seed: int = 0) -> np.ndarray:
    """(count, 28, 28, 1) float32 images: grey bars on black, as digits are."""
    rng = np.random.default_rng(seed)
    images = np.zeros((count, 28, 28, 1), np.float32)
    for image in images:
        for _ in range(3):
            top, left = rng.integers(3, 18, 2)
            down, right = ((3, 10), (10, 3))[rng.integers(2)]
            image[top : top + down, left : left + right] = rng.uniform(0.6, 1)
    return images


PATCHES = smooth(3, (32, 32, 3))
BARS = strokes()
CLASSES = np.array([3, 8, 5])


def bytes_of(images: np.ndarray) -> Dataset:
    """A data set of float images, its labels in turn from ten classes."""
    labels = (np.arange(len(images)) % 10).astype(np.int32)
    names = tuple(str(number) for number in range(10))
    return Dataset(np.rint(255 * images).astype(np.uint8), labels, names, "made")


@functools.cache
def many_bars() -> Dataset:
    return bytes_of(strokes(48, seed=1))


def own_class(model: rvis.Model, images: np.ndarray) -> np.ndarray:
    """(n,) the class that the network gives each image."""
    return np.asarray(rvis.record(model, images, "logits")["logits"]).argmax(-1)


# Pictures.


def drawn(model: rvis.Model, objective: Any, **options: Any) -> Arrays:
    found = rvis.visualize(model, objective, **{"steps": 4, **QUIET, **options})
    return fields(found, "images", "scores", "labels", "dead")


@entry
def visualize_channels() -> Arrays:
    """The defaults: a Fourier image, Adam, random views."""
    return drawn(colours(), channel("layer2", [0, 5, 9]))


@entry
def visualize_pixels() -> Arrays:
    return drawn(digits(), channel("conv2", [0, 5, 9]), image="pixel", transforms=())


@entry
def visualize_neuron() -> Arrays:
    return drawn(digits(), neuron("conv2", [3, 4], position=(5, 6)), key=3)


@entry
def visualize_receptive_field() -> Arrays:
    return drawn(digits(), neuron("conv2", [3]), size="receptive_field", facets=2)


@entry
def visualize_direction() -> Arrays:
    vector = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
    return drawn(digits(), direction("conv2", vector, cosine_power=1.0))


@entry
def visualize_layer() -> Arrays:
    return drawn(digits(), layer("conv1"), start=BARS[0], image="pixel")


@entry
def visualize_logits() -> Arrays:
    return drawn(digits(), logit([1, 7]) - 0.5 * logit(4))


@entry
def visualize_probability() -> Arrays:
    """The plain gradient, in steps of one length."""
    return drawn(colours(), probability([2, 3]), key=1, **STEADY)


@entry
def visualize_transforms() -> Arrays:
    moves = (Jitter(2), Scale((0.9, 1.0, 1.1)), Rotate((-5.0, 0.0, 5.0)), Noise(0.02))
    return drawn(digits(), channel("conv2", [1]), transforms=moves, facets=2)


@entry(rtol=1e-2, atol=2e-3, reason="Adam's first steps on gradients that are nearly zero")
def visualize_diverse() -> Arrays:
    return drawn(digits(), channel("conv2", [7]) + 0.5 * diversity("conv2"), facets=3)


@entry
def visualize_snapshots() -> Arrays:
    options = {"snapshots": (0, 1, 3), "best": True, **QUIET}
    found = rvis.visualize(digits(), channel("pool2", [2, 3]), steps=4, **options)
    stages = {f"step{step}": stage for step, stage in found.snapshots.items()}
    return fields(found, "images", "scores") | stages


@entry
def visualize_regularized() -> Arrays:
    penalties = (
        rvis.regularizers.total_variation(1e-3),
        rvis.regularizers.l1(1e-3),
        rvis.regularizers.alpha_norm(1e-3),
        rvis.regularizers.blur(1e-3),
    )
    return drawn(digits(), channel("conv2", [1, 2]), regularizers=penalties)


@entry
def visualize_maps() -> Arrays:
    maps = (decay(0.01), blur(0.5, every=2), small_norm(20))
    return drawn(digits(), logit(1), post_step=maps, image="pixel")


@entry
def visualize_maps_by_gradient() -> Arrays:
    of = rvis.post_step
    maps = (of.small_contribution(10),)
    return drawn(digits(), logit(1), start=BARS[0], post_step=maps, **STEADY)


@entry
def visualize_kept_near() -> Arrays:
    near = rvis.regularizers.distance(0.1, BARS[0])
    return drawn(digits(), logit(1), start=BARS[0], regularizers=(near,), **STEADY)


@entry
def visualize_optimizers() -> Arrays:
    """A score for each step of each optimizer."""
    kinds = {
        "sgd": rvis.optimizers.sgd(0.1, momentum=0.5),
        "linf": rvis.optimizers.steepest(0.01, norm="linf"),
        "nadam": rvis.optimizers.nadam(0.05),
        "optax": rvis.optimizers.from_optax(optax.rmsprop, 0.01, decay=0.8),
    }
    plain = {"image": "pixel", "transforms": (), "start": smooth(1, (28, 28, 1))[0]}
    return {
        f"{name}_{key}": value
        for name, kind in kinds.items()
        for key, value in drawn(digits(), channel("conv2", 3), optimizer=kind, **plain).items()
        if key in ("images", "scores")
    }


@entry
def transforms() -> Arrays:
    """Every view of one picture, without a network."""
    of = rvis.transforms
    kinds = {
        "jitter": of.Jitter(3),
        "noise": of.Noise(0.1),
        "pad": of.Pad(3, fill=0.2),
        "part": of.RandomCrop(16),
        "roll": of.Roll(5),
        "rotate": of.Rotate((-10.0, 10.0)),
        "scale": of.Scale((0.8, 1.2)),
    }
    one = {name: of.apply((kind,), 1, jnp.asarray(PATCHES)) for name, kind in kinds.items()}
    return one | {"lucid": of.apply(of.lucid(32), 2, jnp.asarray(PATCHES))}


@entry(rtol=2e-2, atol=5e-2, reason="small pixels become zero, and rounding decides which they are")
def visualize_yosinski() -> Arrays:
    return drawn(digits(), logit([2, 5]), **yosinski(3, rate=300))


@entry
def visualize_maco() -> Arrays:
    found = rvis.visualize(colours(), logit([1]), image="maco", steps=3, **QUIET)
    return fields(found, "images", "scores", "alpha")


@entry
def visualize_cppn() -> Arrays:
    return drawn(digits(), channel("conv2", [4]), image="cppn", transforms=())


@entry(atol=2e-3, reason="Adam's first steps on gradients that are nearly zero")
def visualize_pyramid() -> Arrays:
    return drawn(digits(), channel("conv2", [4]), image="pyramid")


@entry
def visualize_rgba() -> Arrays:
    clear = [rvis.regularizers.opacity(3.0)]
    found = rvis.visualize(
        colours(), logit([4]), image="rgba", regularizers=clear, steps=3, **QUIET
    )
    return fields(found, "images", "scores", "alpha")


@entry
def visualize_own_statistics() -> Arrays:
    own = Fourier((28, 28, 1), statistics=estimate(strokes(16, seed=2)))
    return drawn(
        digits(), channel("conv2", [4, 6]), image=own, optimizer=rvis.optimizers.nadam(0.5)
    )


@entry
def visualize_vectors() -> Arrays:
    """Objectives that compare activations with given ones, one picture each."""
    seen = rvis.record(digits(), BARS[:2], ["conv2", "relu1"])
    kinds = {
        "tensor": objectives.tensor_direction("conv2", seen["conv2"][0], cosine_power=1),
        "match": objectives.match("conv2", seen["conv2"][0]),
        "guide": objectives.guide("conv2", seen["conv2"][0].reshape(-1, 64)),
        "gram": objectives.gram("relu1", objectives.gram_matrix(seen["relu1"][0])),
    }
    return {
        f"{name}_{key}": value
        for name, kind in kinds.items()
        for key, value in drawn(digits(), kind, steps=2, transforms=()).items()
        if key in ("images", "scores")
    }


@entry
def visualize_between() -> Arrays:
    goal = objectives.interpolate(logit(1), logit(9)) + objectives.alignment("conv2")
    return drawn(digits(), goal, facets=3, **STEADY)


@entry
def visualize_composed() -> Arrays:
    """A product, a difference, and a function of activations."""
    spread = objectives.function(lambda seen: seen["conv1"].std(), "conv1")
    goal = channel("conv2", 3) * channel("conv1", 2) - 0.5 * channel("conv2", 5) + spread
    return drawn(digits(), goal)


@entry
def sweep_layer() -> Arrays:
    found = rvis.sweep(digits(), "conv1", range(5), steps=3, **QUIET)
    return fields(found, "images", "scores", "dead")


@entry
def sweep_folder() -> Arrays:
    with tempfile.TemporaryDirectory() as folder:
        found = rvis.sweep(digits(), "conv1", [3, 8], out=f"{folder}/made", steps=3, **QUIET)
        return fields(found, "images", "scores", "labels")


@entry
def deepdream() -> Arrays:
    found = rvis.deepdream(
        colours(), smooth(1, (40, 48, 3))[0], "layer2", octaves=2, steps=2, **QUIET
    )
    return fields(found, "images", "scores")


@entry
def deepdream_guided() -> Arrays:
    found = rvis.deepdream(
        digits(), BARS[0], "conv2", guide=BARS[1], octaves=1, steps=2, key=4, **QUIET
    )
    return fields(found, "images", "scores")


@entry
def dream_zoom() -> Arrays:
    found = rvis.visualization.zoom(
        digits(), BARS[0], "conv2", frames=3, octaves=1, steps=1, **QUIET
    )
    return fields(found, "images", "scores")


@entry
def activation_grid() -> Arrays:
    found = rvis.activation_grid(digits(), BARS[0], "pool2", steps=2, size=16, **STEADY, **QUIET)
    return fields(found, "images", "scores", "labels")


@entry
def activation_atlas() -> Arrays:
    seen = np.random.default_rng(0).uniform(size=(50, 64))
    found = rvis.activation_atlas(digits(), "conv2", seen, seen[:, :2], grid=2, steps=2, **QUIET)
    pictures = fields(found.icons, "images", "scores")
    return fields(found, "cells", "counts", "vectors") | pictures


# What layers keep.


@entry
def deconv_reconstruct() -> Arrays:
    found = deconv.reconstruct(digits(), BARS, "conv2", 7, **QUIET)
    return fields(found, "pixels", "values", "positions")


@entry
def deconv_plates() -> Arrays:
    found = deconv.plates(digits(), "conv2", range(4), many_bars(), k=3, **QUIET)
    filters = deconv.first_layer_filters(digits())
    return fields(found, "reconstructions") | fields(filters, "kernels")


@entry
def top_activations() -> Arrays:
    found = deconv.top_activations(digits(), "conv2", [3, 7], many_bars(), k=4, **QUIET)
    return fields(found, "units", "values", "indices", "positions", "corners", "patches")


@entry
def invert() -> Arrays:
    found = rvis.invert(digits(), BARS[:2], "conv2", samples=2, steps=4, **QUIET)
    return fields(found, "images", "scores", "originals", "errors")


@entry
def invert_layers() -> Arrays:
    found = rvis.invert_layers(
        digits(), BARS[:2], ["conv1", "fc1"], references=many_bars(), steps=3, **QUIET
    )
    names = ("images", "errors", "normalised_errors", "psnr", "ssim", "spread", "spread_ssim")
    return fields(found, *names, "neighbours", "neighbour_distances")


@entry
def match() -> Arrays:
    found = rvis.match(digits(), BARS[:2], BARS[1:], steps=4, **QUIET)
    return fields(found, "images", "scores", "distances", "remaining")


@entry
def match_in_a_ball() -> Arrays:
    found = rvis.match(
        digits(), BARS[:1], BARS[1:2], "conv2", start="noise", eps=0.5, steps=3, **QUIET
    )
    return fields(found, "images", "scores", "distances")


@entry
def interpolate() -> Arrays:
    found = rvis.interpolate(digits(), BARS[0], BARS[1], frames=3, steps=4, **QUIET)
    return fields(found, "images", "scores", "distances")


@entry
def style_texture() -> Arrays:
    found = rvis.style.texture(digits(), BARS[0], samples=2, steps=4, **QUIET)
    return fields(found, "images", "scores", "style_loss", "content_loss")


@entry
def style_transfer() -> Arrays:
    photo, brush = smooth(2, (32, 32, 3), seed=5)
    found = rvis.style.transfer(colours(), photo, brush, ratio=[0.3, 0.03], steps=4, **QUIET)
    return fields(found, "images", "scores", "style_loss", "content_loss")


@entry
def style_transfer_adam() -> Arrays:
    found = rvis.style.transfer(
        digits(), BARS[0], BARS[1:], shares=(0.3, 0.7), tv=0.1, optimizer=rvis.optimizers.adam(0.02),
        start="noise", steps=4, **QUIET,
    )  # fmt: skip
    return fields(found, "images", "scores", "style_loss", "content_loss")


@entry
def style_texture_in_scales() -> Arrays:
    found = rvis.style.texture(
        colours(), PATCHES[0], size=40, layers=["conv1", "layer1"], scales=(0.5, 1.0),
        histogram=False, steps=3, **QUIET,
    )  # fmt: skip
    return fields(found, "images", "scores", "style_loss")


@entry
def style_statistics() -> Arrays:
    return drawn(digits(), logit(3) + 10 * rvis.style.statistics(digits(), BARS), steps=3)


# CLIP.


@entry
def clip_encode() -> Arrays:
    clip = rvis.clip.load("scenes")
    texts = ["a large red circle on the left", "a small green ring in the centre"]
    seen = scenes.generate(2, seed=3)
    return {
        "images": rvis.clip.encode_image(clip, seen.images),
        "texts": rvis.clip.encode_text(clip, texts),
        "scenes": seen.images,
    }


@entry
def clip_invert() -> Arrays:
    found = rvis.clip.invert(
        rvis.clip.load("scenes"), ["a red circle"], samples=2, copies=2, steps=2, **QUIET
    )
    return fields(found, "images", "scores", "similarities")


@entry
def clip_similarity() -> Arrays:
    clip = rvis.clip.load("scenes")
    wanted = rvis.clip.similarity(clip, "a red circle")
    wanted = wanted - 0.5 * rvis.clip.similarity(clip, "a blue circle")
    scene = scenes.generate(1, seed=3).images[0]
    return drawn(clip.image, wanted, start=scene, steps=3, **STEADY)


@entry
def clip_classifier() -> Arrays:
    clip = rvis.clip.load("scenes")
    names = ["red circle", "blue square", "green ring"]
    model = rvis.clip.classifier(clip, names, templates=("a {}", "a large {}"))
    seen = scenes.generate(2, seed=3)
    return {"logits": rvis.record(model, seen.images, "logits")["logits"]}


# One classifier makes and changes images.

SYNTHESIS = ("images", "scores", "starts", "distances")


@entry
def synthesis_generate() -> Arrays:
    found = rvis.synthesis.generate(digits(), ["3", "8"], steps=3, **QUIET)
    return fields(found, *SYNTHESIS, "labels")


@entry
def synthesis_fitted() -> Arrays:
    seeds = rvis.synthesis.fit(bytes_of(strokes(60, seed=4)), cells=4)
    found = rvis.synthesis.generate(digits(), [1, 2], seeds=seeds, steps=2, key=5, **QUIET)
    return fields(seeds, "mean", "root") | fields(found, *SYNTHESIS)


@entry
def synthesis_inpaint() -> Arrays:
    mask = np.zeros((28, 28), np.float32)
    mask[8:16, 8:20] = 1
    found = rvis.synthesis.inpaint(digits(), BARS[:2], mask, steps=3, **QUIET)
    return fields(found, *SYNTHESIS)


@entry
def synthesis_super_resolve() -> Arrays:
    small = BARS[:2].reshape(2, 14, 2, 14, 2, 1).mean((2, 4))
    found = rvis.synthesis.super_resolve(digits(), small, 2, [3, 8], steps=3, **QUIET)
    return fields(found, *SYNTHESIS)


@entry
def synthesis_translate() -> Arrays:
    found = rvis.synthesis.translate(colours(), PATCHES[:2], "truck", steps=3, **QUIET)
    return fields(found, *SYNTHESIS)


@entry
def synthesis_sketch() -> Arrays:
    found = rvis.synthesis.sketch(digits(), BARS[:2], [3, 8], steps=3, snapshots=(0, 1), **QUIET)
    return fields(found, *SYNTHESIS) | {"step1": found.snapshots[1]}


@entry
def synthesis_paint() -> Arrays:
    mask = np.zeros((28, 28), np.float32)
    mask[8:16, 8:20] = 1
    found = rvis.synthesis.paint(digits(), BARS[:1], mask, channel("conv2", 17), steps=3, **QUIET)
    return fields(found, *SYNTHESIS)


# Attacks.

ATTACK = ("images", "success", "predictions", "clean", "distances", "iterations", "losses")


def attacked(attack: Callable[..., Any], **options: Any) -> Arrays:
    """An attack on the bars, of which the network's own answers are the truth."""
    labels = own_class(digits(), BARS)
    return fields(attack(digits(), BARS, labels, **QUIET, **options), *ATTACK)


def aimed(attack: Callable[..., Any], **options: Any) -> Arrays:
    """A targeted attack on the bars."""
    labels = own_class(digits(), BARS)
    target = (labels + 1) % 10
    return fields(attack(digits(), BARS, labels, target=target, **QUIET, **options), *ATTACK)


@entry
def attack_fgsm() -> Arrays:
    return attacked(attacks.fgsm, eps=[0.05, 0.1, 0.2])


@entry
def attack_bim() -> Arrays:
    return attacked(attacks.bim, eps=0.1, steps=4)


@entry
def attack_pgd_linf() -> Arrays:
    return attacked(attacks.pgd, eps=0.1, steps=4, restarts=2)


@entry
def attack_pgd_l2() -> Arrays:
    return attacked(attacks.pgd, norm="l2", eps=1.0, steps=4, key=2)


@entry
def attack_pgd_l1() -> Arrays:
    return attacked(attacks.pgd, norm="l1", eps=8.0, steps=4)


@entry
def attack_pgd_targeted() -> Arrays:
    return aimed(attacks.pgd, norm="l2", eps=2.0, steps=4, loss="margin")


@entry
def attack_pgd_colours() -> Arrays:
    labels = own_class(colours(), PATCHES)
    found = attacks.pgd(colours(), PATCHES, labels, norm="l2", eps=0.5, steps=3, **QUIET)
    return fields(found, *ATTACK)


@entry
def attack_apgd() -> Arrays:
    return attacked(attacks.apgd, eps=0.1, steps=6)


@entry
def attack_apgd_dlr() -> Arrays:
    return attacked(attacks.apgd, norm="l2", eps=1.0, steps=6, loss="dlr", restarts=2)


@entry
def attack_apgd_l1() -> Arrays:
    return attacked(attacks.apgd, norm="l1", eps=12.0, steps=6)


@entry
def attack_square_l1() -> Arrays:
    return attacked(attacks.square, norm="l1", eps=12.0, steps=20)


@entry
def attack_fab() -> Arrays:
    return attacked(attacks.fab, eps=0.2, steps=4, restarts=2)


@entry
def attack_fab_targeted() -> Arrays:
    return aimed(attacks.fab, norm="l2", steps=4)


@entry
def attack_fmn() -> Arrays:
    return attacked(attacks.fmn, norm="linf", steps=6)


@entry
def attack_ddn() -> Arrays:
    return attacked(attacks.ddn, steps=6)


@entry
def attack_mi_fgsm() -> Arrays:
    return attacked(attacks.mi_fgsm, eps=0.2, steps=4, diversity=0.5)


@entry
def attack_hop_skip_jump() -> Arrays:
    return attacked(attacks.hop_skip_jump, start=1 - BARS, steps=40)


@entry
def attack_autoattack() -> Arrays:
    labels = own_class(digits(), BARS)
    found = attacks.autoattack(digits(), BARS, labels, norm="l2", eps=3.0, **QUIET)
    return fields(found, "images", "success", "predictions", "distances", "fooled_by")


@entry
def attack_quantized() -> Arrays:
    levels, labels = np.round(255 * BARS) / np.float32(255), own_class(digits(), BARS)
    found = attacks.pgd(digits(), levels, labels, eps=0.1, steps=4, quantize=True, **QUIET)
    return fields(found, *ATTACK, "rounded")


@dataclasses.dataclass(frozen=True)
class Noisy:
    """An `apply` of images with noise that a key draws."""

    apply: Callable[..., Any]
    takes_key: bool = True

    def __call__(self, params: Any, images: Any, *, key: Any = None, **options: Any) -> Any:
        key = jax.random.key(0) if key is None else key
        return self.apply(
            params, images + 0.1 * jax.random.normal(key, images.shape, jnp.float32), **options
        )


@entry
def attack_eot() -> Arrays:
    model = digits().replace(apply=Noisy(digits().apply))
    labels = own_class(digits(), BARS)
    return fields(attacks.pgd(model, BARS, labels, eps=0.1, steps=4, eot=3, **QUIET), *ATTACK)


@entry
def attack_universal() -> Arrays:
    labels = own_class(digits(), BARS)
    found = attacks.universal(digits(), BARS, labels, eps=0.2, steps=4, batch_size=2, **QUIET)
    return fields(found, "change", "scores", "images", "success")


@entry
def attack_patch() -> Arrays:
    labels = own_class(digits(), BARS)
    found = attacks.patch(digits(), BARS, labels, size=(6, 5), target=3, steps=4, **QUIET)
    return fields(found, "change", "scores", "images", "success")


@entry
def certificates() -> Arrays:
    labels = own_class(digits(), BARS)
    found = attacks.certify(digits(), BARS, labels, sigma=0.25, samples=64, selection=8, **QUIET)
    return fields(found, "radii", "predictions", "counts")


@entry
def attack_deepfool() -> Arrays:
    return attacked(attacks.deepfool, steps=5)


@entry(rtol=1e-2, atol=2e-3, reason="Adam's first steps on gradients that are nearly zero")
def attack_carlini_wagner() -> Arrays:
    return attacked(
        attacks.carlini_wagner, binary_search_steps=2, steps=4, learning_rate=0.1, weight=1.0
    )


@entry
def attack_square() -> Arrays:
    return attacked(attacks.square, eps=0.2, steps=20)


@entry
def attack_square_l2() -> Arrays:
    return attacked(attacks.square, norm="l2", eps=2.0, steps=20, key=1)


@entry
def attack_lbfgs() -> Arrays:
    return aimed(attacks.lbfgs, binary_search_steps=2, steps=5)


@entry
def attack_fool() -> Arrays:
    found = attacks.fool(digits(), [3, 8], steps=6, **QUIET)
    return fields(found, "images", "scores", "starts", "probabilities", "since")


@entry
def attack_fool_from_picture() -> Arrays:
    found = attacks.fool(digits(), [4], start=BARS[0], eps=1.0, objective="logit", steps=4, **QUIET)
    return fields(found, "images", "scores", "starts", "probabilities", "since")


CURVE = ("epsilons", "accuracies", "smallest", "iterations", "clean")


@entry
def robustness() -> Arrays:
    labels = own_class(digits(), BARS)
    found = attacks.robustness(
        digits(), BARS, labels, epsilons=(0, 0.5, 1.0, 2.0), norm="l2", steps=4, **QUIET
    )
    return fields(found, *CURVE)


@entry
def robustness_apgd() -> Arrays:
    labels = own_class(digits(), BARS)
    found = attacks.robustness(
        digits(), BARS, labels, epsilons=(0.05, 0.1, 0.2), attack="apgd", steps=5, **QUIET
    )
    return fields(found, *CURVE)


@entry
def smallest_epsilon() -> Arrays:
    labels = own_class(digits(), BARS)
    options = {"norm": "l2", "high": 4.0, "binary_search_steps": 5, **QUIET}
    return {"eps": attacks.smallest_epsilon(digits(), attacks.fgsm, BARS, labels, **options)}


@entry
def verify() -> Arrays:
    labels = own_class(digits(), BARS)
    found = attacks.verify(
        digits(), attacks.pgd, BARS, labels, eps=0.1, steps=4, queries=8, loss="margin", **QUIET
    )
    return {
        "names": np.array([check.name for check in found.checks]),
        "passed": np.array([check.passed for check in found.checks]),
    }


# Evolution.


def evolved(encoding: str) -> Arrays:
    found = rvis.evolve.map_elites(
        digits(), [1, 4, 7], encoding=encoding, generations=6, batch_size=10, **QUIET
    )
    rough = {"roughness": rvis.evolve.roughness(found.images)}
    return fields(found, "images", "scores", "classes") | rough


@entry
def evolve_direct() -> Arrays:
    return evolved("direct")


@entry
def evolve_cppn() -> Arrays:
    return evolved("cppn")


# Attribution.


def attributed(method: Callable[..., Any], *names: str, **options: Any) -> Arrays:
    found = method(digits(), BARS, CLASSES, **QUIET, **options)
    return fields(found, "maps", "scores", *names)


@entry
def attribution_gradient() -> Arrays:
    return attributed(attribution.gradient)


@entry
def attribution_of_a_channel() -> Arrays:
    found = attribution.gradient(colours(), PATCHES, channel("layer2", 7), **QUIET)
    return fields(found, "maps", "scores") | {"heat": found.heatmaps()}


@entry
def attribution_input_x_gradient() -> Arrays:
    return attributed(attribution.input_x_gradient)


@entry
def attribution_integrated_gradients() -> Arrays:
    return attributed(attribution.integrated_gradients, "gap", steps=8, baseline=0.1, tol=None)


@entry
def attribution_integrated_midpoint() -> Arrays:
    return attributed(attribution.integrated_gradients, "gap", steps=5, rule="midpoint", tol=None)


@entry
def attribution_smoothgrad() -> Arrays:
    return attributed(attribution.smoothgrad, samples=5)


@entry
def attribution_vargrad() -> Arrays:
    return attributed(attribution.vargrad, samples=5)


@entry
def attribution_expected_gradients() -> Arrays:
    return attributed(attribution.expected_gradients, "gap", data=BARS[::-1], samples=4)


@entry
def attribution_guided_path() -> Arrays:
    return attributed(attribution.guided_integrated_gradients, "gap", steps=6)


@entry
def attribution_blur_path() -> Arrays:
    return attributed(attribution.blur_integrated_gradients, "gap", steps=6)


@entry
def attribution_deep_lift() -> Arrays:
    return attributed(attribution.deep_lift, "gap", rule="reveal_cancel", baseline=0.1)


@entry
def attribution_full_gradient() -> Arrays:
    return attributed(attribution.full_gradient, "gap")


@entry
def attribution_lrp() -> Arrays:
    return attributed(attribution.lrp, "gap", "sums", composite="epsilon_gamma_box")


@entry
def attribution_layer_cam() -> Arrays:
    return attributed(attribution.layer_cam, layer=["pool1", "pool2"], signed=True)


@entry
def attribution_kernel_shap() -> Arrays:
    return attributed(attribution.kernel_shap, "values", "gap", players=7, samples=64)


@entry
def attribution_guided_backprop() -> Arrays:
    return attributed(attribution.guided_backprop)


@entry
def attribution_deconvnet() -> Arrays:
    return attributed(attribution.deconvnet)


@entry
def attribution_grad_cam() -> Arrays:
    return attributed(attribution.grad_cam, "raw")


@entry
def attribution_grad_cam_plus() -> Arrays:
    return attributed(attribution.grad_cam_plus, "raw", layer="relu1")


@entry
def attribution_layer_gradient_x_activation() -> Arrays:
    return attributed(attribution.layer_gradient_x_activation, "raw", layer="conv2")


@entry
def attribution_occlusion() -> Arrays:
    return attributed(attribution.occlusion, window=7, stride=7)


@entry
def attribution_rise() -> Arrays:
    return attributed(attribution.rise, samples=32)


SHARES = ("values", "errors", "calls", "permutations")


@entry
def attribution_shapley() -> Arrays:
    """Exact, of nine segments and of four patches over a black baseline."""
    thirds = np.arange(28) * 3 // 28
    exact = attributed(
        attribution.shapley, *SHARES, "gap", players=3 * thirds[:, None] + thirds, baseline="mean"
    )
    black = attributed(attribution.shapley, *SHARES, players=14)
    return exact | {f"black_{name}": value for name, value in black.items()}


@entry
def attribution_shapley_sampling() -> Arrays:
    return attributed(
        attribution.shapley_sampling, *SHARES, "gap", players=7, permutations=6, baseline="mean"
    )


@entry
def attribution_shapley_tolerance() -> Arrays:
    return attributed(
        attribution.shapley_sampling,
        *SHARES,
        players=14,
        permutations=256,
        tolerance=0.05,
        key=1,
        baseline="mean",
    )


@entry
def attribution_shapley_game() -> Arrays:
    weights = jnp.arange(1, 6, dtype=jnp.float32)[None] / 5.0

    def game(present: jax.Array) -> jax.Array:
        return jnp.square((present * weights).sum(-1)) + 2.0 * present.all(-1)

    exact = attribution.shapley(game, players=5, **QUIET)
    drawn = attribution.shapley_sampling(game, players=5, permutations=16, **QUIET)
    names = [field.name for field in dataclasses.fields(exact)]
    return fields(exact, *names) | {f"drawn_{name}": getattr(drawn, name) for name in names}


# Whether a map is any good.


@functools.cache
def bars_maps() -> np.ndarray:
    return np.asarray(attribution.input_x_gradient(digits(), BARS, CLASSES, **QUIET).maps)


@entry
def metrics_curves() -> Arrays:
    rows = {
        "insertion": metrics.insertion(digits(), BARS, bars_maps(), CLASSES, pixels=98, **QUIET),
        "deletion": metrics.deletion(digits(), BARS, bars_maps(), CLASSES, pixels=98, **QUIET),
        "flipping": metrics.pixel_flipping(
            digits(), BARS, bars_maps(), CLASSES, region=4, steps=5, draws=2, **QUIET
        ),
    }
    return {
        f"{name}_{key}": value
        for name, curve in rows.items()
        for key, value in fields(curve, "shares", "scores", "area", "fall").items()
    }


@entry
def metrics_sanity_check() -> Arrays:
    quiet = functools.partial(attribution.gradient, **QUIET)
    found = metrics.sanity_check(digits(), quiet, BARS, CLASSES)
    return fields(found, "modules", "signed", "absolute", "similarity", "maps")


@entry
def metrics_trust() -> Arrays:
    maps = bars_maps()
    quiet = functools.partial(attribution.gradient, **QUIET)
    options = {"samples": 8, **QUIET}
    return {
        "infidelity": metrics.infidelity(digits(), BARS, maps, CLASSES, **options),
        "max_sensitivity": metrics.max_sensitivity(digits(), quiet, BARS, CLASSES, samples=3),
    }


@entry
def metrics_randomised() -> Arrays:
    noisy = metrics.randomised(digits(), ["fc2", "conv1"], key=1)
    logits = rvis.record(noisy, BARS, "logits")["logits"]
    return {"modules": np.array(metrics.modules(digits())), "logits": logits}


@entry
def metrics_plain() -> Arrays:
    """What needs no network."""
    rng = np.random.default_rng(0)
    first, second = rng.uniform(size=(2, 3, 16, 16))
    return {
        "alignment": metrics.alignment(PATCHES, PATCHES[::-1]),
        "spearman": metrics.spearman(first, second),
        "similarity": metrics.structural_similarity(first, 0.5 * first + 0.5 * second),
        "mean": np.array(metrics.mean(first[0, 0])),
        "share": np.array(metrics.share(first[0, 0] > 0.4)),
        "histogram": rvis.style.match_histogram(PATCHES[0], PATCHES[1]),
    }


@entry
def faithfulness() -> Arrays:
    found = rvis.faithfulness(
        digits(),
        channel("conv2", range(3)),
        BARS,
        many_bars().take(range(16)),
        other=rvis.load("mnist_cnn_robust"),
    )
    names = ("activation", "percentile", "rank", "counterpart", "correlation", "transfer")
    return fields(found, *names)


# Groups, neighbours, fields, the data's manifold.


@entry
def groups() -> Arrays:
    draw = functools.partial(rvis.visualize, start=BARS[1], steps=2, **STEADY, **QUIET)
    found = rvis.concepts.groups.factorize(digits(), BARS[0], "relu2", k=3, steps=30, draw=draw)
    names = ("maps", "vectors", "icons", "effects", "rest", "residual")
    return fields(found, *names)


@entry
def groups_nmf() -> Arrays:
    matrix = np.random.default_rng(0).uniform(size=(20, 9))
    return fields(rvis.concepts.groups.nmf(matrix, 3, steps=30), "maps", "vectors", "residual")


@entry
def neighbours() -> Arrays:
    found = rvis.analysis.neighbours.nearest(digits(), BARS, many_bars(), "fc1", k=3, **QUIET)
    return fields(found, "indices", "distances", "labels", "images")


@entry
def receptive_fields() -> Arrays:
    fine = rvis.analysis.receptive.receptive_field(digits(), "conv2")
    deep = rvis.analysis.receptive.receptive_field(colours(), "layer3")
    return {
        "sizes": np.array([fine.size, deep.size]),
        "strides": np.array([fine.stride, deep.stride]),
        "offsets": np.array([fine.offset, deep.offset]),
    }


@entry
def manifold_dimension() -> Arrays:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(80, 3)) @ rng.normal(size=(3, 12))
    places = rvis.analysis.manifold.local_dimension(points + 0.1, points, k=6)
    found = {
        method: rvis.analysis.manifold.intrinsic_dimension(points, method=method, k=6)
        for method in ("mle", "twonn")
    }
    numbers = {name: np.array([d.value, d.error, *d.interval]) for name, d in found.items()}
    return numbers | {"local": places}


@entry
def manifold_distance() -> Arrays:
    """Along an ascent, from the data away."""
    found = rvis.visualize(
        digits(), logit(3), start=BARS[0], image="pixel", transforms=(), steps=4,
        snapshots=(0, 2, 4), **QUIET,
    )  # fmt: skip
    path = np.stack([found.snapshots[step] for step in (0, 2, 4)]).reshape(3, -1)
    data = strokes(40, seed=6).reshape(40, -1)
    away = rvis.analysis.manifold.distance_to_data(path, data, k=10, directions=4)
    return fields(away, "nearest", "residual", "indices")


@entry
def manifold_linear_shift() -> Arrays:
    found = rvis.analysis.manifold.linear_shift(digits(), BARS, CLASSES, 0.1)
    return fields(found, "dimensions", "predicted", "adversarial", "noise")


@entry
def manifold_toy() -> Arrays:
    found = toy(points=40, attacked=4, hidden=8, steps=20, grid=12)
    return fields(found, "points", "labels", "along", "probabilities", "accuracy", "paths")


# What is shown.


@entry
def plots() -> Arrays:
    maps = bars_maps()
    return {
        "grid": np.asarray(rvis.plotting.grid(PATCHES, columns=2, scale=1)),
        "titled": np.asarray(rvis.plotting.grid(PATCHES, titles=["a", "b", "c"])),
        "overlay": rvis.plotting.overlay(BARS, maps[..., 0]),
        "sprites": np.asarray(rvis.plotting.spritemap(PATCHES)),
    }


# Networks and their training.


@entry
def record() -> Arrays:
    fine = rvis.record(colours(), PATCHES, ["layer1", "layer2.0.relu1", "avgpool", "logits"])
    return dict(fine) | dict(rvis.record(digits(), BARS, ["pool1", "fc2"]))


@entry
def smooth_pools() -> Arrays:
    from rvis.models.pools import smooth_pools

    smooth = smooth_pools(digits())
    return drawn(smooth, channel("pool2", [0, 1]), image="pixel", transforms=(), steps=3)


@entry
def joined_inputs() -> Arrays:
    from rvis.models.inputs import join_inputs, split_inputs

    def apply(params: Any, inputs: Any, *, tap: Any, relu: Any) -> tuple[jax.Array, jax.Array]:
        signal, volume = inputs
        heard = tap("heard", signal * params["slope"][None])
        return heard.sum((1, 2))[:, None], -jnp.square(volume - 0.25).sum((2, 3, 4))

    params = {"slope": np.sin(np.arange(7) + 0.5).reshape(7, 1).astype(np.float32)}
    joined = join_inputs(apply, params, [(7, 1), (2, 3, 4, 2)], ranges=[(-1, 1), (0, 1)])
    found = rvis.visualize(
        joined,
        channel("output0", 0) + channel("output1", 0),
        image="pixel",
        transforms=(),
        steps=4,
        **QUIET,
    )
    signal, volume = split_inputs(joined, found.images)
    return {"signal": signal, "volume": volume, "scores": found.scores}


def small(key: int = 0) -> rvis.Model:
    """A residual network of two classes of 8-pixel images."""
    return architectures.build(
        "cifar_resnet",
        config={"stages": (1, 1), "widths": (4, 8), "classes": 2},
        weights="random",
        key=key,
        input_shape=(8, 8, 1),
        mean=(0.5,),
        std=(0.5,),
    )


@functools.cache
def stripes() -> Dataset:
    """Rows and columns of grey."""
    rng = np.random.default_rng(0)
    labels = np.arange(48, dtype=np.int32) % 2
    wave = 0.5 + 0.3 * np.sign(np.sin(np.arange(8) * np.pi / 2 + 0.1))
    images = np.stack([np.tile(wave, (8, 1)) if k else np.tile(wave[:, None], 8) for k in labels])
    images = (images + rng.normal(0, 0.05, images.shape)).clip(0, 1)
    return Dataset(np.rint(255 * images).astype(np.uint8)[..., None], labels, ("|", "-"), "stripes")


def trained(recipe: Recipe) -> Arrays:
    """The weights in one row, and what they get right."""
    found = rvis.train(small(), stripes(), recipe, **QUIET)
    leaves = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(found.params)]
    logits = rvis.record(found, stripes().floats([0, 1, 2]), "logits")["logits"]
    return {"weights": np.concatenate(leaves), "logits": logits}


@entry
def train() -> Arrays:
    return trained(Recipe(epochs=2, batch_size=16, learning_rate=0.1, crop=1, cutout=2, ema=0.9))


@entry
def train_robust() -> Arrays:
    adversary = Adversary("l2", 0.5, 2)
    return trained(Recipe(epochs=1, batch_size=16, learning_rate=0.1, crop=0, adversary=adversary))


@entry
def evaluate() -> Arrays:
    labelled = many_bars()
    labelled = dataclasses.replace(
        labelled, labels=own_class(digits(), labelled.floats(range(48))).astype(np.int32)
    )
    adversary = Adversary("linf", 0.1, 3)
    return {
        "clean": np.array(rvis.evaluate(digits(), many_bars(), **QUIET)),
        "own": np.array(rvis.evaluate(digits(), labelled, **QUIET)),
        "attacked": np.array(
            rvis.evaluate(digits(), labelled, adversary=adversary, restarts=2, **QUIET)
        ),
    }
