"""Adversarial examples: any image becomes any class by changes that nobody sees."""

from __future__ import annotations

import jax
import numpy as np

import rvis
from rvis import attacks, images, synthesis
from rvis.analysis import metrics, representations
from rvis.plotting import grids
from scripts.gallery import measures, networks, samples
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict, both

_LEVEL = 4.0
"""Of 255: below this RMS a change is called small here."""
_RMS, _SSIM = "RMS change / 255", "SSIM"
_GOLD = "sees a goldfish"

Turned = dict[str, synthesis.Synthesis]


def _ostrich(
    network: str,
    photos: str,
    names: str,
    targets: tuple[str, ...],
    side: int,
    rounds: int,
    steps: int,
) -> attacks.AttackResult:
    model, photograph = networks.load(network), networks.photograph(photos, names, side)
    same = np.repeat(photograph[None], len(targets), axis=0)
    best = np.asarray(model(same)).argmax(1)
    options = {"binary_search_steps": rounds, "steps": steps, "weight": 0.01}
    return attacks.lbfgs(model, same, best, target=list(targets), **options)


def _changed(result: attacks.AttackResult, network: str) -> Outcome:
    model = networks.load(network)
    sure = np.asarray(jax.nn.softmax(model(result.images)))
    size, change = 255 * result.distance("rms"), result.images - result.originals
    alike = representations.ssim(result.originals, result.images)
    assert result.target is not None
    table = {
        model.classes[wanted]: {
            "fooled": float(fooled),
            "probability": float(sure[i, wanted]),
            _RMS: float(size[i]),
            _SSIM: float(alike[i]),
        }
        for i, (wanted, fooled) in enumerate(zip(result.target, result.success, strict=True))
    }
    most = np.maximum(np.abs(change).max((1, 2, 3), keepdims=True), 1e-9)
    first = model.classes[int(result.clean[0])]
    some = slice(0, 4)
    picture = grids.grid(
        [result.originals[some], (0.5 + change / (2 * most))[some], result.images[some]],
        titles=[
            *[first] * len(size[some]),
            *(f"x {0.5 / m:.0f}" for m in most.ravel()[some]),
            *(model.classes[i] for i in result.predictions[some]),
        ],
        row_titles=["original", "change", "fooled"],
        scale=1 if change.shape[1] > 96 else 2,
    )
    return Outcome(picture, table)


def _shark(
    network: str, photos: str, names: str, target: str, side: int, steps: int
) -> attacks.Fooling:
    model, elephant = networks.load(network), networks.photograph(photos, names, side)
    options = {"start": elephant[None], "image": images.Pixel(elephant.shape), "steps": steps}
    return attacks.fool(model, [target], confidence=0.99, **options)


def _no_shark(result: attacks.Fooling, judges: tuple[str, ...], target: str) -> Outcome:
    table = {
        "the network itself": {
            "probability before": float(result.probabilities[0, 0]),
            "after": float(result.probabilities[0, -1]),
            _RMS: float(255 * result.distance("rms")[0]),
            _SSIM: float(representations.ssim(result.starts, result.images)[0]),
        }
    }
    for judge in judges:
        found = networks.seen(judge, result.images, [target])
        table[networks.title(judge)] = {"sees it among its first five": float(found[0])}
    change = result.images - result.starts
    row = [result.starts[0], 0.5 + change[0] / (2 * np.abs(change).max()), result.images[0]]
    titles = [
        "start",
        f"x {0.5 / np.abs(change).max():.0f}",
        f"{target} {result.probabilities[0, -1]:.0%}",
    ]
    return Outcome(grids.grid([row], titles=titles), table)


def _goldfish(count: int, steps: int) -> Turned:
    animals = samples.load("tiny_imagenet_animals")
    elephants = np.flatnonzero(animals.labels == animals.classes.index("African_elephant"))
    others = np.setdiff1d(np.arange(0, len(animals), 4), elephants)
    start = animals.floats(np.concatenate([elephants, others[1:]])[:count])
    pair = "tiny_resnet", "tiny_resnet_robust"
    options = {"target": ["goldfish"] * len(start), "steps": steps, "step_size": 0.5}
    return {name: synthesis.translate(rvis.load(name), start, **options) for name in pair}


def _turned(found: Turned, judges: tuple[str, ...]) -> Outcome:
    starts = found["tiny_resnet"].starts
    pictures = {"photographs": starts} | {name: one.images for name, one in found.items()}
    table: dict[str, dict[str, float]] = {}
    for name, shown in pictures.items():
        table[name] = {}
        for judge in judges:
            hits = networks.seen(judge, shown, ["goldfish"] * len(shown))
            table[name] |= measures.told(f"{networks.title(judge)} {_GOLD}", metrics.share(hits))
    rows = [shown[:6] for shown in pictures.values()]
    return Outcome(grids.grid(rows, row_titles=["start", "standard", "robust"], scale=2), table)


def _judge(tables: Tables) -> Verdict:
    rows = tables["ostrich"].values()
    fooled = metrics.share([row["fooled"] > 0 and row[_RMS] < _LEVEL for row in rows])
    largest = max(row[_RMS] for row in rows)
    shark = tables["shark"]["the network itself"]
    others = [row for name, row in tables["shark"].items() if name != "the network itself"]
    transfer = sum(sum(row.values()) for row in others)
    told, points = _asked(tables["goldfish"])
    points += [fooled.mean == 1, shark["after"] > 0.9 and shark[_SSIM] > 0.8]
    return Verdict(
        "yes" if all(points) else "in part" if any(points) else "no",
        f"{fooled:.0%} of {len(rows)} attacks end in the class asked for at an RMS change of at "
        f"most {largest:.2f} of 255. The elephant is a tiger shark with {shark['after']:.0%} and "
        f"keeps an SSIM of {shark[_SSIM]:.2f}; {transfer:.0f} of {len(others)} other networks see "
        f"a shark, too. {told}",
    )


def _asked(table: Tables | dict) -> tuple[str, list[bool]]:
    """What the judges say of the 64-pixel goldfish, and whether robust is ahead for each."""
    told, ahead = [], []
    names = [name for name in table["tiny_resnet"] if name.endswith(_GOLD)]
    for name in names:
        plain, robust = (
            measures.read(table[which], name) for which in ("tiny_resnet", "tiny_resnet_robust")
        )
        ahead.append(robust.low > plain.high)
        judge = name.removesuffix(f" {_GOLD}")
        told.append(f"{judge} in {robust:.0%} (standard network: {plain:.0%})")
    return f"In what the robust network made, a goldfish is seen by {', '.join(told)}.", ahead


def section(cast: networks.Cast) -> Section:
    """The section, drawn by these networks."""
    real = len(networks.load(cast.classifier).classes) == 1000
    name, by = networks.title(cast.classifier), both(network=cast.classifier, photos=cast.photos)
    targets: tuple[str, ...] = (
        "ostrich",
        "goldfish",
        "teapot",
        "king penguin",
        "pizza",
        "volcano",
        "zebra",
        "lion",
    )
    shark, side = "tiger shark", (96, 192)
    if not real:
        targets = ("goldfish", "monarch", "king_penguin", "brain_coral", "bullfrog", "ladybug")
        shark, side = "goldfish", (64, 64)
    judges = tuple(one for one in cast.judges if one != cast.classifier) or cast.judges
    return Section(
        name="fooling",
        title="Adversarial examples",
        claim="Changes too small to be seen turn any image into any class: the bus is an ostrich "
        "to the network and a bus to us. The gradient that turns an elephant into a shark draws no "
        "shark; that of a robust network draws the other animal.",
        parts=(
            Part(
                name="ostrich",
                caption=f"A photograph with what {name} takes it for (top), the change by the "
                "first attack, box-constrained L-BFGS, magnified as told (middle), and the changed "
                "photograph with its new class (bottom).",
                alt="The same photograph four times, coloured noise, and the photograph four times "
                "again, which looks unchanged but carries other class names.",
                draw=_ostrich,
                tell=lambda found: _changed(found, cast.classifier),
                numbers=by
                | both(names="school_bus rocket ladybug")
                | {"targets": (targets[:2], targets), "side": side}
                | {"rounds": (3, 6), "steps": (8, 15)},
            ),
            Part(
                name="shark",
                caption=f"An elephant on which {name}'s gradient asks for a {shark} until the "
                "network is 99 % sure; what was added, magnified; and the result.",
                alt="A photograph of an elephant, coloured noise, and the same elephant; no shark.",
                draw=_shark,
                tell=lambda found: _no_shark(found, judges, shark),
                numbers=by
                | both(names="African_elephant", target=shark)
                | {"side": side, "steps": (12, 60)},
            ),
            Part(
                name="goldfish",
                caption="Elephants and other animals of 64 pixels (top) that are asked to become "
                "goldfish, by steps up the class's probability: by a standard network (middle) and "
                "by a robust one (bottom).",
                alt="Rows of small photographs: elephants, the same with noise, and orange fish in "
                "their places.",
                draw=_goldfish,
                tell=lambda found: _turned(found, cast.judges),
                numbers={"count": (4, 24), "steps": (12, 60)},
            ),
        ),
        judge=_judge,
        needs="Small pictures and four goldfish decide nothing.",
    )
