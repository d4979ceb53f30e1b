"""Every objective with every parameterization: does it run, climb, and compile once?

Command:  python scripts/combinations.py [--models cifar10_resnet cifar10_resnet_robust inceptionv1]
Time:     on one core about an hour for the CIFAR networks, two for InceptionV1, most of it
          compilation; ten minutes with `--models mnist_cnn`.
Prints:   a table: for each parameterization and network, how many of the objectives, drawn with one
          facet and with four, raised their score, and how many programs were compiled for each
          when drawn for a second unit (0 is right). Exit status 1 where any failed.
A score has risen where the pictures at the end, seen in 8 random ways, score more than those at the
start and more than each of 15 other starts, all seen in the same 8 ways, for both of two units.
Those that do not at first have another start and four, then sixteen times the steps, the latter on
networks with random weights without random views; each that needed it is named. An objective that
moved by chance alone would pass in 3 of 100 cases.
An architecture's name stands for the architecture with random weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax import lax

import rvis
from rvis import engine, images, objectives, struct, transforms
from rvis.ascent import Problem, energy
from rvis.objectives import Objective
from rvis.transforms import Transform
from rvis.types import Array, Model
from rvis.visualization import Options

MEMBERS = (1, 2)
"""Which of three objectives of a kind are drawn; two differ in nothing but numbers."""


def spread(seen: dict, scale: float) -> rvis.types.Array:
    """A function of a user's own: how much a layer varies."""
    (activation,) = seen.values()
    return scale * activation.std()


def table(
    model: Model, layer: str, spec: images.Parameterization
) -> dict[str, Callable[[int], Objective]]:
    """Each objective as a function of which of three it is."""
    height, width, channels = rvis.layer_shapes(model)[layer]
    rng = np.random.default_rng(0)
    noise = np.asarray(starts(spec, 1))[:, 0, ..., : model.input_shape[2]]
    active = rvis.record(model, noise, layer)[layer].mean((1, 2)).min(0)
    # With the next unit both factors of a product: where both are dead it has no gradient.
    units = np.argsort(-np.minimum(active[:-1], active[1:]))[:3].tolist()
    vectors = rng.standard_normal((3, channels)).astype(np.float32)
    tensors = rng.standard_normal((3, height // 2, width // 2, channels)).astype(np.float32)
    photo = rng.uniform(size=(1, *model.input_shape)).astype(np.float32)
    seen = np.asarray(rvis.record(model, photo, layer)[layer][0])
    o = objectives
    return {
        "neuron": lambda i: o.neuron(layer, units[i]),
        "neuron at a place": lambda i: o.neuron(layer, units[i], (0, i)),
        "channel": lambda i: o.channel(layer, units[i]),
        "layer": lambda i: o.layer(layer),
        "direction": lambda i: o.direction(layer, vectors[i]),
        "direction, cosine": lambda i: o.direction(layer, vectors[i], cosine_power=2),
        "direction of a neuron": lambda i: o.direction(layer, vectors[i], position=(0, i)),
        "tensor direction": lambda i: o.tensor_direction(layer, tensors[i]),
        "caricature": lambda i: o.tensor_direction(layer, seen * i, cosine_power=1),
        "window": lambda i: o.tensor_direction(layer, tensors[i], position=(0, i)),
        "product": lambda i: o.channel(layer, units[i]) * o.neuron(layer, units[i] + 1),
        "weighted set": lambda i: o.channel(layer, units[i]) + 0.5 * o.neuron(layer, units[i] + 1),
        "interpolation": lambda i: o.interpolate(
            o.channel(layer, units[0]), o.channel(layer, units[i])
        ),
        "path": lambda i: o.interpolate(
            o.channel(layer, units[0]), o.channel(layer, units[i]), o.logit(i)
        ),
        "alignment": lambda i: o.channel(layer, units[i]) + 0.1 * o.alignment(layer),
        "diversity": lambda i: o.channel(layer, units[i]) + 0.1 * o.diversity(layer),
        "activation difference": lambda i: -o.match(layer, seen * i),
        "match": lambda i: o.match(layer, seen * i),
        "guide": lambda i: o.guide(layer, seen[i]),
        "function": lambda i: o.function(spread, layer, float(i)),
        "logit": lambda i: o.logit(i),
        "probability": lambda i: o.probability(i),
    }


def programs() -> int:
    """How many programs the runner has compiled so far."""
    return engine.programs.advance._cache_size()  # type: ignore[attr-defined]


@partial(jax.jit, static_argnames=("spec", "views"))
def scores(
    model: Model,
    objective: Objective,
    pictures: Array,
    spec: images.Parameterization,
    views: tuple[Transform, ...],
) -> Array:
    """The scores (n,) of n groups of pictures, all seen in the same ways."""
    compose = getattr(spec, "composite", None)
    keys = jax.random.split(jax.random.key(1), 8 if views or compose else 1)
    problem = Problem(objective)

    def one(group: Array) -> Array:
        def seen(key: Array) -> Array:
            _, score = energy(group, key, model, problem, views=views, compose=compose)
            return score

        return lax.map(seen, keys).mean()

    return lax.map(one, pictures)


@partial(jax.jit, static_argnames=("spec", "facets"))
def starts(spec: images.Parameterization, facets: int) -> Array:
    """The pictures (15, facets, H, W, C) of other starts."""
    keys = jax.random.split(jax.random.key(2), (15, facets))
    return jax.vmap(jax.vmap(lambda key: spec.decode(spec.init(key))))(keys)


def rise(
    model: Model,
    objective: Objective,
    spec: images.Parameterization,
    views: tuple[Transform, ...],
    options: Options,
) -> float:
    """By how much the score of the last pictures exceeds that of the best of 16 starts."""
    facets = options["facets"]
    chosen: Options = {**options, "image": spec, "transforms": views}
    result = rvis.visualize(model, objective, **chosen)
    ends = np.stack([result.snapshots[0], result.images]).reshape(2, facets, *spec.shape)
    pictures = np.concatenate([ends, starts(spec, facets)])
    before, after, *others = scores(model.unnamed(), objective, pictures, spec, views)
    return float(after - max(before, *others))


def loaded(name: str, size: int) -> tuple[Model, bool]:
    """The model, and whether its weights are random."""
    try:
        return rvis.load(name), False
    except ValueError:
        model = rvis.load(name, weights="random")
        shape = (size, size, model.input_shape[2])
        return struct.replace(model, input_shape=shape), True


class Row(NamedTuple):
    """What was seen of one network and parameterization."""

    climbed: dict[int, int]
    compiled: int
    again: list[str]
    failed: list[str]


def measured(
    model: Model,
    random: bool,
    makers: dict[str, Callable[[int], Objective]],
    spec: images.Parameterization,
    steps: int,
) -> Row:
    """Draws every objective with one facet and with four."""
    views = () if isinstance(spec, images.CPPN) else transforms.lucid(min(spec.shape[:2]))
    climbed, compiled = {1: 0, 4: 0}, 0
    again: list[str] = []
    failed: list[str] = []
    for title, make in makers.items():
        for facets in climbed:
            # The mark after the first steps cuts longer climbs into the same pieces.
            options: Options = {"facets": facets, "snapshots": (0, steps), "progress": False}
            longer: dict[str, Options] = {
                f"{n} times the steps": {**options, "steps": n * steps, "key": n} for n in (4, 16)
            }
            if random:  # and so never made to bear views, for which more steps are no help
                longer["without views"] = longer.pop("16 times the steps")
            options["steps"] = steps
            ends, before = {}, []
            for member in MEMBERS:
                ends[member] = rise(model, make(member), spec, views, options)
                before.append(programs())
            compiled += before[-1] - before[0]
            for how, more in longer.items():
                seen = () if how == "without views" else views
                for member in [member for member in MEMBERS if not ends[member] > 0]:
                    ends[member] = rise(model, make(member), spec, seen, more)
                    if ends[member] > 0:
                        again.append(f"{title}, {facets}: {how}")
            lowest = min(ends.values())
            climbed[facets] += lowest > 0
            if not lowest > 0:
                failed.append(f"{title}, {facets}: {lowest:.3g}")
    return Row(climbed, compiled, again, failed)


def main(arguments: list[str] | None = None) -> int:
    """Draws, counts and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = ["cifar10_resnet", "cifar10_resnet_robust", "inceptionv1"]
    p.add_argument("--models", nargs="+", default=names)
    p.add_argument("--images", nargs="+", default=list(images.KINDS))
    p.add_argument("--steps", type=int, default=16)
    p.add_argument("--size", type=int, default=32, help="of architectures' pictures")
    a = p.parse_args(arguments)
    good = True
    print("| image | network | 1 facet climbs | 4 facets climb | compilations for another unit |")
    print("|---|---|---|---|---|")
    for image in a.images:
        # Networks of one architecture take turns here, to share its programs.
        for name in a.models:
            model, random = loaded(name, a.size)
            spec = images.named(image, model.input_shape)
            layer = {"inceptionv1": "mixed3a", "mnist_cnn": "conv2"}.get(name, "layer2")
            makers = table(model, layer, spec)
            row = measured(model, random, makers, spec, a.steps)
            counts = " | ".join(f"{n} of {len(makers)}" for n in row.climbed.values())
            print(f"| {image} | {name} | {counts} | {row.compiled} |", flush=True)
            for kind, notes in (("not at first", row.again), ("failed", row.failed)):
                if notes:
                    print(f"{kind}: {'; '.join(notes)}", file=sys.stderr, flush=True)
            good &= not row.failed and not row.compiled
        # Some hundred programs an architecture: those of more than five meet Linux's limit on
        # mapped regions.
        jax.clear_caches()
    return int(not good)


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
