"""Image synthesis with one robust classifier: six tasks, each a climb from another start."""

from __future__ import annotations

import jax
import numpy as np

import rvis
from rvis import evolve, synthesis
from rvis.analysis import representations
from rvis.objectives import channel
from rvis.plotting import grids
from scripts.gallery import samples
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict

_JUDGE = "cifar10_resnet_narrow"


def _generate(count: int, steps: int) -> list[synthesis.Synthesis]:
    classes = np.arange(count) % 10
    models = rvis.load("cifar10_resnet"), rvis.load("cifar10_resnet_robust")
    return [synthesis.generate(model, classes, steps=steps) for model in models]


def _generated(found: list[synthesis.Synthesis]) -> Outcome:
    standard, robust = found
    models = {name: rvis.load(name) for name in (_JUDGE, "cifar10_resnet_robust", "cifar10_resnet")}
    names = models[_JUDGE].classes
    wanted = np.arange(len(robust.images)) % 10
    table: dict[str, dict[str, float]] = {}
    pictures = {"seeds": robust.starts, "standard": standard.images, "robust": robust.images}
    for name, images in pictures.items():
        table[name] = {}
        for title, key in (
            ("judge sees the class", _JUDGE),
            ("the standard one does", "cifar10_resnet"),
            ("the robust one does", "cifar10_resnet_robust"),
        ):
            table[name][title] = float((_told(models[key], images) == wanted).mean())
        if name != "seeds":
            change = 0.5 + (images - robust.starts) / 2
            table[name]["fine share of the change"] = float(np.median(evolve.roughness(change)))
    picture = grids.grid(
        np.stack([images[:8] for images in pictures.values()]),
        titles=[names[i] for i in wanted[:8]],
        row_titles=list(pictures),
        scale=3,
    )
    return Outcome(picture, table)


def _told(model: rvis.Model, images: np.ndarray) -> np.ndarray:
    """(n,) the classes that a network sees, asked in equal pieces."""
    rows = np.minimum(np.arange(-(-len(images) // 10) * 10), len(images) - 1).reshape(-1, 10)
    return np.concatenate([np.asarray(model(images[some])).argmax(1) for some in rows])[
        : len(images)
    ]


def _change(every: int, steps: int) -> tuple[synthesis.Synthesis, np.ndarray]:
    model, test = rvis.load("cifar10_resnet_robust"), samples.load("cifar10")
    some = test.take(slice(3, None, every))
    # An airplane becomes a ship, an automobile a truck, and so on.
    into = np.array([8, 9, 0, 5, 7, 3, 2, 4, 0, 1])[some.labels]
    return synthesis.translate(model, some.floats(), into, steps=steps), into


def _translated(made: tuple[synthesis.Synthesis, np.ndarray]) -> Outcome:
    found, into = made
    judge = rvis.load(_JUDGE)
    before, after = _told(judge, found.starts), _told(judge, found.images)
    table = {
        "judge sees the new class": {
            "before": float((before == into).mean()),
            "after": float((after == into).mean()),
        },
        "SSIM to the start": {
            "after": float(representations.ssim(found.starts, found.images).mean())
        },
    }
    chosen = np.linspace(0, len(into) - 1, 8).astype(int)
    picture = grids.grid(
        np.stack([found.starts[chosen], found.images[chosen]]),
        titles=[judge.classes[i] for told in (before, after) for i in told[chosen]],
        row_titles=["start", "picture"],
        scale=3,
    )
    return Outcome(picture, table)


def _sketch(steps: int) -> synthesis.Synthesis:
    ship, car = np.full((2, 32, 32, 3), (0.55, 0.7, 0.85), np.float32)
    ship[18:] = 0.15, 0.3, 0.45
    ship[17:22, 6:27], ship[9:17, 14:18] = (0.5, 0.15, 0.1), (0.95, 0.95, 0.95)
    car[16:] = 0.45, 0.45, 0.45
    car[15:22, 4:28], car[10:15, 9:22] = (0.7, 0.1, 0.1), (0.7, 0.1, 0.1)
    car[20:25, 7:12], car[20:25, 20:25] = 0.05, 0.05
    model = rvis.load("cifar10_resnet_robust")
    return synthesis.sketch(model, np.stack([ship, car]), ["ship", "automobile"], steps=steps)


def _sketched(found: synthesis.Synthesis) -> Outcome:
    judge = rvis.load(_JUDGE)
    table, titles = {}, []
    for title, images in (("drawing", found.starts), ("picture", found.images)):
        sure = np.asarray(jax.nn.softmax(judge(images)))
        titles += [f"{judge.classes[row.argmax()]} {row.max():.0%}" for row in sure]
        table[title] = {"judge: ship": float(sure[0, 8]), "judge: automobile": float(sure[1, 1])}
    rows = np.stack([found.starts, found.images])
    picture = grids.grid(rows, titles=titles, row_titles=list(table), scale=6)
    return Outcome(picture, table)


def _fill(every: int, steps: int, length: float | None) -> tuple[synthesis.Synthesis, np.ndarray]:
    model, test = rvis.load("cifar10_resnet_robust"), samples.load("cifar10")
    some = test.take(slice(3, None, every))
    hole = np.zeros((32, 32))
    hole[10:22, 10:22] = 1
    options = {"steps": steps, "step_size": length}
    return synthesis.inpaint(model, some.floats(), hole, some.labels, **options), some.floats()


def _filled(made: tuple[synthesis.Synthesis, np.ndarray]) -> Outcome:
    return _restored(*made, ["original", "hole", "filled"])


def _enlarge(every: int, steps: int) -> tuple[synthesis.Synthesis, np.ndarray]:
    model, test = rvis.load("cifar10_resnet_robust"), samples.load("cifar10")
    some = test.take(slice(3, None, every))
    small = some.floats().reshape(-1, 8, 4, 8, 4, 3).mean((2, 4))
    large = synthesis.super_resolve(model, small, 4, some.labels, steps=steps)
    return large, some.floats()


def _enlarged(made: tuple[synthesis.Synthesis, np.ndarray]) -> Outcome:
    return _restored(*made, ["original", "8 pixels", "enlarged"])


def _restored(found: synthesis.Synthesis, images: np.ndarray, names: list[str]) -> Outcome:
    judge = rvis.load(_JUDGE)
    labels = samples.load("cifar10").labels[3 :: 800 // len(images)]
    pictures = dict(zip(names, (images, found.starts, found.images), strict=True))
    table = {}
    for name, shown in pictures.items():
        table[name] = {"judge sees the class": float((_told(judge, shown) == labels).mean())}
        if shown is not images:
            table[name]["PSNR, dB"] = float(representations.psnr(shown, images).mean())
    chosen = np.linspace(0, len(images) - 1, 8).astype(int)
    picture = grids.grid(
        np.stack([shown[chosen] for shown in pictures.values()]),
        titles=[judge.classes[i] for i in labels[chosen]],
        row_titles=names,
        scale=3,
    )
    return Outcome(picture, table)


def _paint(unit: int, weight: float, steps: int) -> synthesis.Synthesis:
    model, test = rvis.load("cifar10_resnet_robust"), samples.load("cifar10")
    images, half = test.floats(np.arange(3, 640, 80)), np.zeros((32, 32))
    half[:, 16:] = 1
    feature = channel("layer4", unit)
    return synthesis.paint(model, images, half, feature, weight=weight, steps=steps)


def _painted(found: synthesis.Synthesis) -> Outcome:
    change = np.square(found.images - found.starts)
    table = {
        "RMS change / 255": {
            "left half, kept": float(255 * np.sqrt(change[:, :, :16].mean())),
            "right half, painted": float(255 * np.sqrt(change[:, :, 16:].mean())),
        },
        "mean activation of the unit": {
            "first step": float(found.scores[:, 0].mean()),
            "last step": float(found.scores[:, -1].mean()),
        },
    }
    rows = np.stack([found.starts[:8], found.images[:8]])
    return Outcome(grids.grid(rows, row_titles=["image", "painted"], scale=3), table)


def _judge(tables: Tables) -> Verdict:
    seen, fine = "judge sees the class", "fine share of the change"
    made, new = tables["generate"], tables["translate"]["judge sees the new class"]
    drawn, hole, large = tables["sketch"]["picture"], tables["inpaint"], tables["enlarge"]
    kept, painted = tables["paint"]["RMS change / 255"].values()
    works = {
        "generate": made["robust"][seen] >= 0.8,
        "translate": new["after"] >= 0.8,
        "sketch": min(drawn.values()) >= 0.5,
        "fill": hole["filled"][seen] > hole["hole"][seen],
        "enlarge": large["enlarged"][seen] > large["8 pixels"][seen],
        "paint": painted > 5 * kept,
    }
    needed = made["robust"][seen] > made["standard"][seen] + 0.2
    failed = ", ".join(name for name, well in works.items() if not well) or "none"
    return Verdict(
        "yes" if needed and all(works.values()) else "in part" if sum(works.values()) > 2 else "no",
        f"Tasks that fail: {failed}. The judge, a third network, sees the class in "
        f"{made['robust'][seen]:.0%} of the pictures that the robust network made and in "
        f"{made['standard'][seen]:.0%} of the standard one's"
        f"{'' if needed else ', so that this measure does not speak for needing a robust one'}; it "
        f"sees the new class in {new['after']:.0%} of those turned (before: {new['before']:.0%}). "
        f"Filled in, {hole['filled'][seen]:.0%} are seen right ({hole['hole'][seen]:.0%} with the "
        f"hole); enlarged, {large['enlarged'][seen]:.0%} ({large['8 pixels'][seen]:.0%} as "
        f"blocks), at {large['enlarged']['PSNR, dB']:.1f} dB ({large['8 pixels']['PSNR, dB']:.1f} "
        f"dB). Waves shorter than four pixels "
        f"have {made['robust'][fine]:.0%} of the variance of what the robust network added to the "
        f"seeds, {made['standard'][fine]:.0%} of what the standard one did.",
    )


SECTION = Section(
    name="synthesis",
    title="Making and changing images with one robust classifier",
    claim="One robust classifier, and nothing but its gradient, makes images of a class, turns one "
    "class into another, finishes a sketch, fills a hole, enlarges, and paints a feature where it "
    "is told to.",
    parts=(
        Part(
            name="generate",
            caption="Draws of a Gaussian of each class (top), and what the probability of the "
            "class makes of them by the standard network and by the robust one.",
            alt="Three rows of eight pictures: coarse coloured blocks, the same with noise, and "
            "recognisable animals and vehicles.",
            draw=_generate,
            tell=_generated,
            numbers={"count": (10, 10, 200), "steps": (15, 60, 60)},
            quick=False,
        ),
        Part(
            name="translate",
            caption="Test images (top) turned into another class (bottom); above each, what the "
            "judge sees.",
            alt="Two rows of eight pictures; the lower ones keep place and colours of the upper "
            "and have shapes of another class.",
            draw=_change,
            tell=_translated,
            numbers={"every": (80, 80, 16), "steps": (30, 60, 200)},
            quick=False,
        ),
        Part(
            name="sketch",
            caption="Two drawings of a few rectangles (top), and what the classes ship and "
            "automobile make of them; above each, what the judge sees and how sure it is.",
            alt="Drawings of a ship and a car in flat colours, and below them the same with "
            "texture, light and wheels.",
            draw=_sketch,
            tell=_sketched,
            numbers={"steps": (30, 60, 60)},
        ),
        Part(
            name="inpaint",
            caption="Test images, the same with a hole in the mean colour, and filled in with what "
            "makes the class likely.",
            alt="Three rows of eight pictures: photographs, photographs with a square hole, and "
            "photographs with the hole filled.",
            draw=_fill,
            tell=_filled,
            numbers={"every": (80, 80, 16), "steps": (60, 100, 720), "length": (0.1, 0.1, None)},
            quick=False,
        ),
        Part(
            name="enlarge",
            caption="Test images, reduced to 8 pixels a side, and enlarged again with detail that "
            "makes the class likely.",
            alt="Three rows of eight pictures: photographs, coarse blocks, and blocks with detail.",
            draw=_enlarge,
            tell=_enlarged,
            numbers={"every": (80, 80, 16), "steps": (40, 40, 40)},
            quick=False,
        ),
        Part(
            name="paint",
            caption="Test images (top), and a unit of the last block painted into the right half "
            "of each (bottom). The weight of keeping the left half is a hundred times the default, "
            "at which it changes as much as the right one. Where the unit is silent to begin with, "
            "it has no gradient and nothing is painted.",
            alt="Two rows of eight pictures; in the lower ones the left halves are as before and "
            "the right halves have a new texture.",
            draw=_paint,
            tell=_painted,
            numbers={"unit": (40, 40, 40), "weight": (1e3, 1e3, 1e3), "steps": (30, 60, 140)},
            quick=False,
        ),
    ),
    judge=_judge,
)
