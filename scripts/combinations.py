"""Every objective with every parameterization: does it run, climb, and compile once?

Command:  python scripts/combinations.py [--models cifar10_resnet cifar10_resnet_robust inceptionv1]
Time:     on one core some half an hour for a CIFAR network, above an hour for InceptionV1, most of
          it compilation; minutes with `--models mnist_cnn`.
Prints:   a table: for each network and parameterization, how many of the objectives, drawn with one
          facet and with four, raised their score, and how many programs were compiled for each
          when drawn for a second unit (0 is right). Those that do not climb at first have another
          start and four, then sixteen times the steps; those that a network with random weights
          climbs for without random views alone are named. Exit status 1 where any failed.
An architecture's name stands for the architecture with random weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import jax
import numpy as np

import rvis
from rvis import core, images, objectives, regularizers
from rvis.objectives import Objective
from rvis.types import Model
from rvis.visualize import Options

MEMBERS = (1, 2)
"""Which of three objectives of a kind are drawn; two differ in nothing but numbers."""


def spread(seen: dict, scale: float) -> rvis.types.Array:
    """A function of a user's own: how much a layer varies."""
    (activation,) = seen.values()
    return scale * activation.std()


def table(model: Model, layer: str) -> dict[str, Callable[[int], Objective]]:
    """Each objective as a function of which of three it is."""
    height, width, channels = rvis.layer_shapes(model)[layer]
    rng = np.random.default_rng(0)
    noise = rng.uniform(size=(8, *model.input_shape)).astype(np.float32)
    active = rvis.record(model, noise, layer)[layer].mean((0, 1, 2))
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
        "schedule": lambda i: o.scheduled(o.channel(layer, units[i]), {0: 1.0, 8: 1 + i / 100}),
        "penalty": lambda i: (
            o.channel(layer, units[i]) + o.penalty(layer, regularizers.l1(1e-6, about=i))
        ),
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
    return core.run._cache_size()  # type: ignore[attr-defined]


def rise(result: rvis.Result) -> float:
    """How much the score rose between a quarter at the start and one at the end."""
    quarter = max(1, result.scores.shape[-1] // 4)
    return float(result.scores[..., -quarter:].mean() - result.scores[..., :quarter].mean())


def main(arguments: list[str] | None = None) -> int:
    """Draws, counts and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = ["cifar10_resnet", "cifar10_resnet_robust", "inceptionv1"]
    p.add_argument("--models", nargs="+", default=names)
    p.add_argument("--images", nargs="+", default=list(images.KINDS))
    p.add_argument("--steps", type=int, default=16)
    p.add_argument("--size", type=int, default=32, help="of architectures' pictures")
    a = p.parse_args(arguments)
    failures = []
    print("| network | image | 1 facet climbs | 4 facets climb | compilations for another unit |")
    print("|---|---|---|---|---|")
    for name in a.models:
        try:
            model, random = rvis.load(name), False
        except ValueError:
            random = True
            model = rvis.load(name, weights="random")
            model = model.replace(  # type: ignore[attr-defined]
                input_shape=(a.size, a.size, model.input_shape[2])
            )
        layer = {"inceptionv1": "mixed3a", "mnist_cnn": "conv2"}.get(name, "layer2")
        makers = table(model, layer)
        for image in a.images:
            climbed, compiled = {1: 0, 4: 0}, 0
            viewless: list[str] = []
            for title, make in makers.items():
                for facets in climbed:
                    options: Options = {"steps": a.steps, "facets": facets, "image": image}
                    options["progress"] = False
                    before = 0
                    for i, member in enumerate(MEMBERS):
                        result = rvis.visualize(model, make(member), **options)
                        if i == 0:
                            before = programs()
                    compiled += programs() - before
                    ends = rise(result)
                    longer = options
                    for key, steps in enumerate((4 * a.steps, 16 * a.steps), 1):
                        if not ends > 0:  # a few views can hide a climb, a start be unlucky
                            longer = {**options, "steps": steps, "key": key}
                            ends = rise(rvis.visualize(model, make(MEMBERS[-1]), **longer))
                    if random and not ends > 0:  # which was never made to bear views
                        still: Options = {**longer, "transforms": ()}
                        ends = rise(rvis.visualize(model, make(MEMBERS[-1]), **still))
                        if ends > 0:
                            viewless.append(f"{title}, {facets}")
                    climbed[facets] += bool(ends > 0)
                    if not ends > 0:
                        failures.append(f"{name}, {image}, {title}, {facets}: {ends:.3g}")
                        print(failures[-1], file=sys.stderr, flush=True)
            counts = " | ".join(f"{n} of {len(makers)}" for n in climbed.values())
            print(f"| {name} | {image} | {counts} | {compiled} |", flush=True)
            if compiled:
                failures.append(f"{name}, {image}: compiled again")
            # Some hundred programs a row: more rows than five meet Linux's limit on mapped regions.
            jax.clear_caches()
            if viewless:
                print(f"without views alone: {'; '.join(viewless)}", file=sys.stderr, flush=True)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
