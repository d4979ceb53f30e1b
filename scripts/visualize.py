"""Pictures of what the channels and classes of a network want to see.

Command:  python scripts/visualize.py
          python scripts/visualize.py MODEL LAYER [--units 0 1 2 …] [--out FOLDER]
Time:     without arguments some five minutes on two cores: classes and channels of the real
          networks that the extra `imagenet` brings, then, in under two, those of the two shipped
          CIFAR-10 networks, standard beside robust. With a model, some seconds a unit.
Prints:   where the pictures are, and which units never moved. Of a layer, `index.html` is a page to
          browse it by and `spritemap.png` the labelled sheet; with --snapshots or --diversity
          `figure.png`, and `film.webp` the snapshots as a film. An interrupted command goes on
          where it stopped.
MODEL is a name of `rvis.list_models()` or a path that `rvis.load` reads (an architecture needs
`--weights`), or one of the extra `imagenet`: efficientnet_lite0, alexnet, vgg16; LAYER a name of
`model.layers`, or "logits" for the classes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where run as a file
import rvis
from rvis import objectives, optimizers
from rvis.__main__ import reported
from rvis.plotting import films, grids
from rvis.visualization import Options
from scripts.gallery import networks

LUCID: Options = {"steps": 96}
PLAIN: Options = {
    "steps": 60,
    "image": "pixel",
    "transforms": (),
    "optimizer": optimizers.steepest(0.5, norm="l2"),
}
"""Nothing but the gradient: steps of L2 length .5 on pixels, no transformation, no penalty."""


def real(out: Path, *, key: int, progress: bool) -> list[Path]:
    """Classes and channels of real networks, where they are installed."""
    if not networks.installed():
        print(networks.WITHOUT)
        return []
    options: Options = {"steps": 128, "key": key, "progress": progress}
    drawn = networks.draw(networks.CLASSES, networks.UNITS, **options)
    for place, result in drawn.items():
        result.save(out / place.replace(" ", "_"))
        report(result)
    grids.save(networks.sheet(drawn), out / "real.png")
    return [out / "real.png"]


def gallery(out: Path, *, key: int, progress: bool) -> list[Path]:
    """Standard beside robust: classes and channels, without any regularizer and with lucid's."""
    written = []
    names = ("cifar10_resnet", "cifar10_resnet_robust")
    models = [rvis.load(name) for name in names]
    classes = np.arange(len(models[0].classes))
    for title, objective, recipes in (
        ("classes", objectives.probability(classes), (("plain", PLAIN), ("lucid", LUCID))),
        ("layer3", objectives.channel("layer3", np.arange(10)), (("lucid", LUCID),)),
    ):
        rows, labels = [], []
        for recipe, options in recipes:
            for name, model in zip(names, models, strict=True):
                folder = out / f"{title}_{name}_{recipe}"
                options = {**options, "key": key, "progress": progress}
                result = rvis.visualize(model, objective, checkpoint=folder / "state", **options)
                result.save(folder)
                report(result)
                rows.append(result.images)
                labels.append(f"{name.removeprefix('cifar10_')}, {recipe}")
        sheet = grids.grid(np.stack(rows), titles=list(result.labels), row_titles=labels)
        written.append(out / f"{title}.png")
        grids.save(sheet, written[-1])
    return written


def report(result: rvis.Result) -> None:
    """Says which units never moved."""
    dead = [str(label) for label in np.atleast_1d(result.labels)[np.atleast_1d(result.dead)]]
    if dead:
        print(f"never moved, so their pictures mean nothing: {', '.join(dead)}")


def one_layer(a: argparse.Namespace) -> list[Path]:
    """A sweep of one layer, or of some of its units."""
    model = rvis.load(a.model, weights=a.weights) if a.weights else networks.load(a.model)
    options: Options = PLAIN.copy() if a.plain else {}
    if a.steps is not None:
        options["steps"] = a.steps
    options |= {"key": a.seed, "progress": not a.quiet, "facets": a.facets}
    options["size"] = int(a.size) if a.size is not None and a.size.isdigit() else a.size
    if a.image is not None:
        options["image"] = a.image
    kind = "neuron" if a.neuron else "channel"
    if not (a.snapshots or a.diversity):
        report(rvis.sweep(model, a.layer, a.units, kind=kind, out=a.out, **options))
        return [a.out / "index.html", a.out / "spritemap.png"]
    options["snapshots"] = a.snapshots
    shapes = rvis.layer_shapes(model)
    rvis.checks.choice("layer", a.layer, shapes)
    units = np.arange(shapes[a.layer][-1]) if a.units is None else np.asarray(a.units)
    make = objectives.neuron if a.neuron else objectives.channel
    objective: objectives.Objective = make(a.layer, units)
    if a.diversity:
        objective = objective + a.diversity * objectives.diversity(a.layer)
    result = rvis.visualize(model, objective, checkpoint=a.out / "state", **options)
    result.save(a.out)
    report(result)
    written = [a.out / "figure.png"]
    if a.snapshots:
        written.append(a.out / "film.webp")
        frames = [images.reshape(-1, *images.shape[-3:]) for images in result.snapshots.values()]
        films.film([grids.grid(images) for images in frames], written[-1], rate=4)
    return written


@reported(goes_on=True)
def main(arguments: list[str] | None = None) -> int:
    """Draws and says where; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("model", nargs="?")
    p.add_argument("layer", nargs="?")
    p.add_argument("--units", type=int, nargs="+", help="channel or class numbers; all by default")
    p.add_argument("--weights", help="a file of weights, for an architecture's name")
    p.add_argument("--neuron", action="store_true", help="the centre neuron instead of the channel")
    p.add_argument("--plain", action="store_true", help="no regularizer: for robust networks")
    p.add_argument("--steps", type=int, help="512 by default, 60 with --plain")
    p.add_argument("--size", help="pixels, or receptive_field; the model's own by default")
    p.add_argument("--image", help="a name of rvis.images.KINDS; fourier by default")
    p.add_argument("--facets", type=int, default=1, help="pictures of each unit")
    p.add_argument("--diversity", type=float, help="weight of the diversity of the facets")
    p.add_argument("--snapshots", type=int, nargs="+", default=[], help="steps to show")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.add_argument("--out", type=Path, help="out, or out/MODEL_LAYER, by default")
    a = p.parse_args(arguments)
    if a.model is not None and a.layer is None:
        p.error("LAYER: a name of model.layers was expected beside MODEL")
    if a.out is None:
        a.out = Path("out") if a.model is None else Path("out", f"{Path(a.model).name}_{a.layer}")
    if a.model is None:
        written = real(a.out, key=a.seed, progress=not a.quiet)
        written += gallery(a.out, key=a.seed, progress=not a.quiet)
    else:
        written = one_layer(a)
    for path in written:
        print(path)
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
