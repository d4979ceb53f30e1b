"""Why: few dimensions of data in many of pixels, and networks that are linear along a gradient."""

from __future__ import annotations

import itertools

import numpy as np

import rvis
from rvis import images
from rvis.analysis import manifold, metrics
from rvis.plotting import figures
from scripts.gallery import measures, networks, samples
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict, both
from scripts.gallery.toy import Toy, toy

_TIMES = "measured, times the prediction"
_NOISE = "measured, times that of random signs"
_DIMENSION = "dimension"
_AWAY = "distance to the nearest photograph"


def _toy(points: int) -> Toy:
    return toy(points=points, attacked=24)


def _leaving(found: Toy) -> Outcome:
    fell = np.isfinite(found.off)
    table = {
        "two features": {
            "accuracy on the data": found.accuracy,
            "points attacked": len(found.off),
            "fell": int(fell.sum()),
            "path off the curve, median": float(np.median(found.off[fell])),
            "way along the curve, median": float(np.median(found.on[fell])),
        }
    }
    return Outcome(figures.picture(found.plot()), table)


def _layers(
    network: str, layers: tuple[str, ...], side: int, k: int
) -> dict[str, tuple[int, manifold.Dimension]]:
    model, animals = networks.load(network), samples.enlarged("tiny_imagenet_animals", side)
    pixels = samples.load("tiny_imagenet_animals").floats()
    noise = np.random.default_rng(0).random(pixels.shape, np.float32)
    points = {"pixels of noise": noise, "pixels": pixels}
    pieces = [animals.floats(slice(i, i + 12)) for i in range(0, len(animals), 12)]
    seen = [rvis.record(model, some, layers) for some in pieces]
    for layer in layers:
        whole = np.concatenate([np.asarray(one[layer]) for one in seen])
        points[layer] = whole.mean((1, 2)) if whole.ndim == 4 else whole
    return {name: (x[0].size, manifold.intrinsic_dimension(x, k=k)) for name, x in points.items()}


def _few(found: dict[str, tuple[int, manifold.Dimension]]) -> Outcome:
    table = {}
    for name, (size, told) in found.items():
        half = 1.96 * told.error
        interval = metrics.Interval(told.value, told.value - half, told.value + half)
        table[name] = {"numbers": float(size)} | measures.told(_DIMENSION, interval)
    ax = figures.axes(size=(7, 4.2))
    values = [row[_DIMENSION] for row in table.values()]
    ax.bar(list(table), values, color=["0.6", *["C0"] * (len(table) - 1)])
    ax.tick_params(axis="x", labelrotation=25)
    ax.set(ylabel="intrinsic dimension")
    return Outcome(figures.picture(ax), table)


def _ascent(
    network: str, names: tuple[str, ...], layer: str, size: int, steps: int
) -> tuple[dict[int, np.ndarray], np.ndarray]:
    model, stages = networks.load(network), (0, steps // 8, steps // 2, steps)
    steep = images.Fourier((size, size, 3), decay=1.5)
    drawn = rvis.visualize(model, list(names), image=steep, steps=steps, snapshots=stages)
    animals = samples.enlarged("tiny_imagenet_animals", size)
    pieces = [animals.floats(slice(i, i + 12)) for i in range(0, len(animals), 12)]
    data = np.concatenate([np.asarray(rvis.record(model, x, layer)[layer]) for x in pieces])
    return {
        step: np.asarray(rvis.record(model, shown, layer)[layer])
        for step, shown in drawn.snapshots.items()
    }, data


def _leaves(found: tuple[dict[int, np.ndarray], np.ndarray]) -> Outcome:
    stages, data = found
    own = manifold.distance_to_data(data, data, exclude=np.arange(len(data))).nearest
    table = {"photographs, the others": measures.told(_AWAY, metrics.mean(own))}
    for step, points in stages.items():
        away = manifold.distance_to_data(points, data).nearest
        table[f"step {step}"] = measures.told(_AWAY, metrics.mean(away))
    ax = figures.axes(size=(7, 4.2))
    ax.plot(list(stages), [row[_AWAY] for row in list(table.values())[1:]], "o-", label="ascent")
    ax.axhline(float(own.mean()), color="0.5", ls="--", label="photographs")
    ax.set(xlabel="step", ylabel="distance in the last representation", ylim=(0, None))
    ax.legend()
    return Outcome(figures.picture(ax), table)


def _linear(network: str, side: int, every: int) -> dict[str, manifold.LinearShift]:
    found = {}
    for name, size in ((network, side), ("tiny_resnet", 64), ("tiny_resnet_robust", 64)):
        animals, model = samples.enlarged("tiny_imagenet_animals", size), networks.load(name)
        some = animals.floats(slice(0, None, every))
        best = np.concatenate([np.asarray(model(x[None])).argmax(1) for x in some])
        found[name] = manifold.linear_shift(model, some, best, 1 / 255)
    return found


def _adding_up(found: dict[str, manifold.LinearShift]) -> Outcome:
    table = {}
    ax = figures.axes(size=(7, 4.5))
    for i, (model, shift) in enumerate(found.items()):
        sizes = {
            name: np.sqrt(np.square(getattr(shift, name)).mean(0))
            for name in ("adversarial", "predicted", "noise")
        }
        for (name, values), look in zip(sizes.items(), ("-", "o", "--"), strict=True):
            label = f"{networks.title(model)}, {name}"
            x, y = shift.dimensions, np.maximum(values, 1e-6)
            ax.plot(x, y, look, ms=4, color=f"C{i}", label=label)
        last = {name: np.abs(getattr(shift, name)[:, -1]) for name in sizes}
        times = last["adversarial"] / last["predicted"]
        table[networks.title(model)] = measures.told(_TIMES, metrics.mean(times)) | {
            _NOISE: float(sizes["adversarial"][-1] / sizes["noise"][-1])
        }
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="numbers of the image changed by 1/255",
        ylabel="change of the logit (root mean square)",
    )
    ax.legend(fontsize="x-small")
    return Outcome(figures.picture(ax), table)


def _judge(tables: Tables) -> Verdict:
    toy = tables["toy"]["two features"]
    off, on = toy["path off the curve, median"], toy["way along the curve, median"]
    sizes = {name: measures.read(row, _DIMENSION) for name, row in tables["dimension"].items()}
    *_, last = sizes
    falling = all(a.mean >= b.mean for a, b in itertools.pairwise(list(sizes.values())[2:]))
    network, linear = next(iter(tables["linear"].items()))
    times, noise = measures.read(linear, _TIMES), linear[_NOISE]
    away = [measures.read(row, _AWAY) for row in tables["ascent"].values()]
    left = away[-1].low > away[0].high
    points = (
        off < on / 2,
        sizes["pixels"].high < sizes["pixels of noise"].low,
        0.5 < times.mean < 2 and noise > 5,
        left,
    )
    return Verdict(
        "yes" if all(points) else "in part" if any(points) else "no",
        f"In the toy, steps of {off:.2f} off the curve do what takes {on:.2f} along it. The "
        f"photographs seem to have {sizes['pixels']:.0f} dimensions in pixels (noise: "
        f"{sizes['pixels of noise']:.0f}, itself far too few: 204 pictures see no more) and "
        f"{sizes[last]:.0f} in {last}, {'falling' if falling else 'not falling'} from layer to "
        f"layer. A picture that climbs a class ends {away[-1]:.1f} from the nearest photograph in "
        f"the last representation, where photographs are {away[0]:.1f} from one another. Along "
        f"the gradient's signs {network}'s logit moves {times:.2f} times what linearity predicts, "
        f"and {noise:.0f} times what random signs do.",
    )


def section(cast: networks.Cast) -> Section:
    """The section, drawn by these networks."""
    network, model = cast.classifier, networks.load(cast.classifier)
    real = len(model.classes) == 1000
    layers = (*networks.depths(network)[1:], model.layers[-2])
    classes = ("ostrich", "king penguin", "school bus", "strawberry", "goldfish", "zebra")
    small = {"side": (64, 160 if real else 64)}
    return Section(
        name="why",
        title="Why adversarial examples exist",
        claim="Images fill few of the dimensions that pixels have. A boundary need only be right "
        "on them, and may pass close by; and since a network is nearly linear along its gradient, "
        "many small changes add up to leave the data and cross it.",
        parts=(
            Part(
                name="toy",
                caption="A network that tells the inner from the outer half of a spiral (blue and "
                "orange; the boundary is grey). Black paths: from some of the points, steps "
                "against the class until it falls.",
                alt="A spiral of points in two colours on a background of two colours; short black "
                "paths leave the spiral sideways.",
                draw=_toy,
                tell=_leaving,
                numbers=both(points=400),
            ),
            Part(
                name="dimension",
                caption="How many dimensions 204 photographs seem to have in pixels and in layers "
                f"of {networks.title(network)} (means over places), by maximum likelihood from the "
                "distances of neighbours, beside noise of equal size.",
                alt="A chart of bars: a high one for noise, lower ones for pixels and layers.",
                draw=_layers,
                tell=_few,
                numbers=both(network=network, layers=layers) | small | both(k=10),
            ),
            Part(
                name="ascent",
                caption="How far pictures of classes are from the nearest of 204 photographs in "
                "the last representation while they are climbed, beside how far photographs are "
                "from one another.",
                alt="A line that rises with the steps, above a dashed level.",
                draw=_ascent,
                tell=_leaves,
                numbers=both(network=network)
                | {
                    "names": (classes[:2], classes)
                    if real
                    else (model.classes[:2], model.classes[:6])
                }
                | both(layer=model.layers[-2])
                | {"size": (64, 128 if real else 64), "steps": (24, 128)},
                quick=False,
            ),
            Part(
                name="linear",
                caption="The change of the best logit when more and more numbers of a photograph "
                "are changed by one level: along the gradient's signs (points: what linearity "
                "predicts), and by random signs.",
                alt="Rising lines on logarithmic axes; the points of the prediction lie on the "
                "line of the gradient's signs, and random signs far below.",
                draw=_linear,
                tell=_adding_up,
                numbers=both(network=network) | small | {"every": (51, 17)},
                quick=False,
            ),
        ),
        judge=_judge,
        needs="The ascent and linearity are left to it.",
    )
