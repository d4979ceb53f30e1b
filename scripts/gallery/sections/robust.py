"""A robust network beside a standard one: gradients, units, matching, changes, and attacks."""

from __future__ import annotations

import numpy as np

import rvis
from rvis import attacks, attribution, data, optimizers, synthesis
from rvis.analysis import metrics, representations
from rvis.inversion import Matching
from rvis.objectives import channel
from rvis.plotting import grids
from scripts.gallery import measures, networks, samples
from scripts.gallery.base import Outcome, Part, Section, Table, Tables, Verdict, both

_PAIR = ("cifar10_resnet", "cifar10_resnet_robust")
_COSINE, _EDGES = "cosine of image and gradient", "rank correlation with edges"
_FINE = "energy above a quarter of a cycle a pixel"
_HELD = "holds"
_CLASS = "of x2"


# Gradients


def _gradients(models: tuple[str, ...], every: int) -> dict[str, attribution.Attribution]:
    some = samples.load("cifar10").take(slice(3, None, every))
    return {
        name: attribution.gradient(networks.load(name), some.floats(), some.labels)
        for name in models
    }


def _seen(found: dict[str, attribution.Attribution]) -> Outcome:
    images = next(iter(found.values())).images
    centred = images - images.mean((1, 2, 3), keepdims=True)
    length = np.sqrt(np.square(centred).sum((1, 2, 3)))
    sharp, rows, table = _edges(images), [images[:: -(-len(images) // 8)]], {}
    for name, one in found.items():
        cosines = metrics.alignment(centred, one.maps) / length
        ranks = metrics.spearman(one.heatmaps("max"), sharp)
        table[networks.title(name)] = measures.told(_COSINE, metrics.mean(cosines))
        table[networks.title(name)] |= measures.told(_EDGES, metrics.mean(ranks))
        some = one.maps[:: -(-len(images) // 8)]
        most = np.percentile(np.abs(some), 99.5, axis=(1, 2, 3), keepdims=True)
        rows.append(np.clip(0.5 + some / (2 * most), 0, 1))
    return Outcome(grids.grid(np.stack(rows), row_titles=["image", *_short(found)]), table)


def _short(found: dict) -> list[str]:
    names = {_PAIR[0]: "standard", _PAIR[1]: "robust"}
    return [names.get(name, "public") for name in found]


def _edges(images: np.ndarray) -> np.ndarray:
    """(n, H, W) length of the differences between neighbours of the grey image (Sobel)."""
    grey = np.pad(images.mean(-1), ((0, 0), (1, 1), (1, 1)), "edge")
    down, across = grey[:, 2:] - grey[:, :-2], grey[:, :, 2:] - grey[:, :, :-2]
    rows = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    columns = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    return np.hypot(rows, columns)


# Coordinates without any regularizer


def _units(layers: dict[str, str], units: int, steps: int) -> dict[str, rvis.Result]:
    plain = {"image": "pixel", "transforms": (), "optimizer": optimizers.steepest(0.5, norm="l2")}
    return {
        name: rvis.visualize(
            networks.load(name), channel(layer, range(units)), steps=steps, **plain
        )
        for name, layer in layers.items()
    }


def _drawn(found: dict[str, rvis.Result]) -> Outcome:
    table = {}
    for name, one in found.items():
        fine = [measures.fine(image[None]) for image in one.images[~one.dead]]
        table[networks.title(name)] = measures.told(_FINE, metrics.mean(fine))
    fine = [measures.fine(image[None]) for image in samples.load("cifar10").floats()[::8]]
    table["photographs"] = measures.told(_FINE, metrics.mean(fine))
    rows = [list(one.images[:8]) for one in found.values()]
    return Outcome(grids.grid(rows, row_titles=_short(found)), table)


# One representation


def _match(models: tuple[str, ...], every: int, steps: int) -> dict[str, Matching]:
    test = samples.load("cifar10")
    x1 = test.floats(np.arange(3, 800, every))
    x2 = np.roll(x1, -len(x1) // 2, axis=0)
    return {name: rvis.match(networks.load(name), x1, x2, steps=steps) for name in models}


def _moved(found: dict[str, Matching], judge: str) -> Outcome:
    one = next(iter(found.values()))
    rows = [one.sources, *(each.images for each in found.values()), one.targets]
    table = _figures(found, judge)
    names = ["x1", *_short(found), "x2"]
    return Outcome(grids.grid(np.stack([row[:8] for row in rows]), row_titles=names), table)


def _figures(found: dict[str, Matching], judge: str) -> Table:
    model, table = networks.load(judge), {}
    for name, one in found.items():
        last = np.asarray(model(one.targets)).argmax(1)
        seen = np.asarray(model(one.images)).argmax(1)
        apart = representations.distances(one.starts, one.targets)
        table[networks.title(name)] = {
            "distance left in R": float(one.remaining.mean()),
            "SSIM to x1": float(representations.ssim(one.starts, one.images).mean()),
            "L2 to x2, of x1's": float((one.to_target()["l2"] / apart).mean()),
        } | measures.told(f"judge sees the class {_CLASS}", metrics.share(seen == last))
    return table


# Images made


def _made(models: tuple[str, ...], count: int, steps: int) -> dict[str, synthesis.Synthesis]:
    return {
        name: synthesis.generate(networks.load(name), np.arange(count) % 10, steps=steps)
        for name in models
    }


def _animals(models: tuple[str, ...], count: int, steps: int) -> dict[str, synthesis.Synthesis]:
    return {
        name: synthesis.generate(networks.load(name), np.arange(count), steps=steps)
        for name in models
    }


def _judged(found: dict[str, synthesis.Synthesis], judges: tuple[str, ...]) -> Outcome:
    names = [str(label) for label in next(iter(found.values())).labels]
    table: dict[str, dict[str, float]] = {}
    pictures = {"seeds": next(iter(found.values())).starts}
    pictures |= {networks.title(name): one.images for name, one in found.items()}
    for name, images in pictures.items():
        table[name] = {}
        for judge in judges:
            first = 5 if len(networks.load(judge).classes) > 10 else 1
            hits = networks.seen(judge, images, names, first=first)
            table[name] |= measures.told(networks.title(judge), metrics.share(hits))
    rows = [list(images[:8]) for images in pictures.values()]
    kinds = ["seed", "standard", "robust"]
    return Outcome(grids.grid(rows, titles=names[:8], row_titles=kinds), table)


# Images restored


def _restored(
    models: tuple[str, ...], count: int, steps: int
) -> tuple[data.Dataset, dict[str, list[synthesis.Synthesis]]]:
    some = samples.load("cifar10").take(slice(3, None, 800 // count))
    whole, hole = some.floats(), np.zeros((32, 32))
    hole[10:22, 10:22] = 1
    small = whole.reshape(-1, 8, 4, 8, 4, 3).mean((2, 4))
    options = {"steps": steps, "step_size": 0.1}
    return some, {
        name: [
            synthesis.inpaint(networks.load(name), whole, hole, some.labels, **options),
            synthesis.super_resolve(networks.load(name), small, 4, some.labels, steps=steps),
        ]
        for name in models
    }


def _compared(
    made: tuple[data.Dataset, dict[str, list[synthesis.Synthesis]]], judge: str
) -> Outcome:
    some, found = made
    model, whole, table, shown = networks.load(judge), some.floats(), {}, [some.floats()[:8]]
    tasks = zip(("hole", "8 pixels"), *found.values(), strict=True)
    for task, *both_made in tasks:
        names = [task, *(f"{task}, {kind}" for kind in _short(found))]
        pictures = [both_made[0].starts, *(one.images for one in both_made)]
        for name, images in zip(names, pictures, strict=True):
            hits = np.asarray(model(images)).argmax(1) == some.labels
            table[name] = measures.told("judge sees the class", metrics.share(hits))
            table[name]["PSNR, dB"] = float(representations.psnr(images, whole).mean())
            shown.append(images[:8])
    titles = ["image", *table]
    return Outcome(grids.grid(np.stack(shown), row_titles=titles, scale=2), table)


# Attacks


_Attacked = dict[str, tuple[attacks.AutoAttackResult, slice]]


def _attacked(models: tuple[str, ...], radii: tuple[float, ...], count: int) -> _Attacked:
    some = samples.load("cifar10").take(slice(0, None, 800 // count))
    # Few images hold: those of all radii fill one program, and two networks at once two cores.
    images, labels = (np.concatenate([each] * len(radii)) for each in (some.floats(), some.labels))
    eps = np.repeat(np.float32(radii), count)

    found = networks.each(
        models, lambda model: attacks.autoattack(model, images, labels, norm="linf", eps=eps)
    )
    return {
        f"{title}, linf {radius:.3g}": (one, slice(i * count, (i + 1) * count))
        for title, one in found.items()
        for i, radius in enumerate(radii)
    }


def _left(found: _Attacked) -> Outcome:
    table = {}
    for name, (one, rows) in found.items():
        by = np.asarray(one.fooled_by)[rows]
        table[name] = {"clean": float((by >= 0).mean())}
        table[name] |= measures.told(_HELD, metrics.share(by >= len(one.attacks)))
    one, last = list(found.values())[-1]
    chosen = np.linspace(last.start, last.stop - 1, 8).astype(int)
    pictures = np.stack([one.originals[chosen], one.images[chosen]])
    classes = samples.load("cifar10").classes
    titles = [classes[i] for told in (one.clean, one.predictions) for i in told[chosen]]
    names = ["image", "attacked"]
    return Outcome(grids.grid(pictures, titles=titles, row_titles=names), table)


def _judge(tables: Tables) -> Verdict:
    standard, robust = _PAIR
    points, said = [], []
    gradients = tables["gradients"]
    plain, strong = (measures.read(gradients[name], _COSINE) for name in _PAIR)
    points.append(strong.low > plain.high)
    public = [name for name in gradients if name not in _PAIR]
    others = "".join(
        f", {measures.read(gradients[name], _COSINE):.3f} of {name}" for name in public
    )
    said.append(
        f"The gradient's cosine with the image is {strong:.3f} (standard: {plain:.3f}{others})"
    )
    low, high = (measures.read(tables["units"][name], _FINE) for name in (robust, standard))
    points.append(low.high < high.low)
    said.append(f"fine detail has {low:.0%} of the energy in its units (standard: {high:.0%})")
    moved = tables["matching"]
    name = f"judge sees the class {_CLASS}"
    plain, strong = (measures.read(moved[which], name) for which in _PAIR)
    points.append(strong.low > plain.high)
    said.append(f"matched to another image, {strong:.0%} show its class (standard: {plain:.0%})")
    for part, (first, second) in (
        ("classes", _PAIR),
        ("animals", ("tiny_resnet", "tiny_resnet_robust")),
    ):
        for judge in [key for key in tables[part][first] if not key.endswith(measures.ENDS)]:
            plain, strong = (measures.read(tables[part][which], judge) for which in (first, second))
            points.append(strong.low > plain.high)
            said.append(f"{judge} sees the class in {strong:.0%} of its {part} ({plain:.0%})")
    held = {name: measures.read(row, _HELD) for name, row in tables["attacks"].items()}
    said.append(
        "; ".join(f"{name}: {share:.0%} withstand AutoAttack" for name, share in held.items())
    )
    return Verdict(
        "yes" if all(points) else "in part" if any(points) else "no", "; ".join(said) + "."
    )


def section(cast: networks.Cast) -> Section:
    """The section, drawn by these networks."""
    stranger = (cast.stranger,) if cast.stranger else ()
    judge = cast.stranger or "cifar10_resnet_narrow"
    layers = dict.fromkeys(_PAIR, "layer4") | dict.fromkeys(stranger, "layer2")
    return Section(
        name="robust",
        title="A robust network beside a standard one",
        claim="Trained against attacks, a network has gradients that look like the image, and each "
        "coordinate of its representation looks like something, without any regularizer. To match "
        "its representation a picture has to become the other one, and what climbs its classes "
        "shows them to other networks, too.",
        parts=(
            Part(
                name="gradients",
                caption="Test images of CIFAR-10, and the gradients of their class's logit, as "
                "they are (grey is zero)"
                + (": the last row of a network that was trained elsewhere." if stranger else "."),
                alt="Eight photographs; below them grey fields of coloured noise, and below these "
                "fields in which the outlines of the photographs can be seen.",
                draw=_gradients,
                tell=_seen,
                numbers=both(models=(*_PAIR, *stranger)) | {"every": (40, 4)},
            ),
            Part(
                name="units",
                caption="Channels of the last block, from noise by steps along the gradient and "
                "nothing else.",
                alt="Rows of eight pictures: noise in the first, shapes with smooth colours below.",
                draw=_units,
                tell=_drawn,
                numbers=both(layers=layers) | {"units": (4, 24), "steps": (20, 60)},
                quick=False,
            ),
            Part(
                name="matching",
                caption="From x1 (top), steps that bring the representation before the last layer "
                "to that of x2 (bottom). The table has what another network sees.",
                alt="Rows of pictures; the second looks like the first with noise, the next shows "
                "blurred shapes of the last.",
                draw=_match,
                tell=lambda found: _moved(found, judge),
                numbers=both(models=(*_PAIR, *stranger)) | {"every": (200, 34), "steps": (24, 200)},
                quick=False,
            ),
            Part(
                name="classes",
                caption="Draws of a Gaussian of each class (top), and what the probability of the "
                "class makes of them. The judge's first answer counts.",
                alt="Three rows of eight pictures: blurred patches of colour, the same with noise, "
                "and recognisable animals and vehicles.",
                draw=_made,
                tell=lambda found: _judged(found, (judge,)),
                numbers=both(models=_PAIR) | {"count": (6, 60), "steps": (15, 60)},
            ),
            Part(
                name="animals",
                caption="The same of animals of 64 pixels. The judges see them enlarged, and the "
                "class counts among their first five.",
                alt="Three rows of eight pictures: blurred patches of colour, the same with noise, "
                "and shapes of animals.",
                draw=_animals,
                tell=lambda found: _judged(found, cast.judges),
                numbers=both(models=("tiny_resnet", "tiny_resnet_robust"))
                | {"count": (4, 51), "steps": (12, 60)},
            ),
            Part(
                name="restored",
                caption="Test images; with a hole, and filled with what makes the class likely; "
                "as 8 pixels a side, and enlarged with detail that does.",
                alt="Rows of eight pictures: photographs, with a square hole, with the hole filled "
                "by noise and by shapes; coarse blocks, and blocks with detail.",
                draw=_restored,
                tell=lambda made: _compared(made, judge),
                numbers=both(models=_PAIR) | {"count": (4, 40), "steps": (15, 60)},
                quick=False,
            ),
            Part(
                name="attacks",
                caption="The share of test images that AutoAttack leaves: four attacks one after "
                "another, whose radius is told. Below, what it made of some for the last network.",
                alt="Two rows of photographs that look alike; most of the lower ones carry other "
                "class names.",
                draw=_attacked,
                tell=_left,
                numbers=both(models=(*_PAIR, *stranger))
                | {"radii": ((8 / 255,), (2 / 255, 8 / 255))}
                | {"count": (4, 16)},
                quick=False,
            ),
        ),
        judge=_judge,
        needs="A handful of pictures decides nothing.",
    )
