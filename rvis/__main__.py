"""The command line: `rvis` or `python -m rvis`, for those who do not write Python."""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import rvis
from rvis import checks

EXAMPLES = {
    "visualize": "rvis visualize efficientnet_lite0 logits --units ostrich goldfish --steps 128\n"
    "  rvis visualize cifar10_resnet_robust layer3 --units 0 1 2 --facets 4",
    "sweep": "rvis sweep cifar10_resnet_robust layer3 --steps 256 --out layer3",
    "dream": "rvis dream photo.jpg --layer layer4 --longest 512",
    "attribute": "rvis attribute photo.jpg --model efficientnet_lite0 --methods gradient grad_cam",
    "attack": "rvis attack photo.jpg --model efficientnet_lite0 --eps 0.008 --target goldfish",
    "gallery": "rvis gallery --quick --out out",
}
METHODS = ("gradient", "integrated_gradients", "smoothgrad", "grad_cam", "occlusion", "rise")
ATTACKS = ("fgsm", "bim", "pgd", "apgd", "square")
IMAGES = ("fourier", "pixel", "pyramid", "cppn", "maco", "rgba")
RANDOM = ("smoothgrad", "rise")


def network(a: argparse.Namespace) -> rvis.Model:
    """A shipped network, one of a file or folder, or an architecture with its public weights."""
    from rvis.models.architectures import ARCHITECTURES

    if a.weights is not None:
        return rvis.load(a.model, weights=a.weights)
    try:
        return rvis.load(a.model)
    except ValueError:
        if a.model not in ARCHITECTURES:
            raise
    return rvis.load(a.model, pretrained=True)


def pictures(a: argparse.Namespace) -> list[Path]:
    """Of units of a layer."""
    units = None if a.units is None else [int(u) if u.isdigit() else u for u in a.units]
    options: dict[str, Any] = {"steps": a.steps, "size": a.size, "image": a.image, "key": a.seed}
    options |= {"facets": a.facets, "progress": not a.quiet}
    sweeping = a.command == "sweep"
    where = {"out": a.out} if sweeping else {}
    result = rvis.sweep(network(a), a.layer, units, **where, **options)
    if not sweeping:
        result.save(a.out)
    dead = np.atleast_1d(result.labels)[np.atleast_1d(result.dead)]
    if dead.size:
        print(f"never moved, so their pictures mean nothing: {', '.join(map(str, dead))}")
    return [a.out / ("index.html" if sweeping else "figure.png")]


def dream(a: argparse.Namespace) -> list[Path]:
    """A photograph in which a layer sees more of what it sees."""
    model = network(a)
    places = [name for name, shape in rvis.layer_shapes(model).items() if len(shape) == 3]
    layer = a.layer or places[-1]
    photo, *guide = (
        rvis.data.read_image(path, longest=a.longest)
        for path in (a.picture, *([] if a.guide is None else [a.guide]))
    )
    options = {"octaves": a.octaves, "steps": a.steps, "key": a.seed, "progress": not a.quiet}
    result = rvis.deepdream(model, photo, layer, guide=guide[0] if guide else None, **options)
    result.save(a.out)
    return [a.out / "figure.png"]


def seen(a: argparse.Namespace) -> tuple[rvis.Model, np.ndarray, np.ndarray]:
    """The network, the picture as it takes it, and its classes, the most probable first."""
    model = network(a)
    image = model.prepare(a.picture)
    logits = np.asarray(model(image))[0]
    odds = np.exp(logits - logits.max())
    best = np.argsort(-logits, kind="stable")
    for k in best[:3]:
        print(f"{model.classes[k] if model.classes else f'class {k}'}: {odds[k] / odds.sum():.1%}")
    return model, image, best.astype(np.int32)


def attribute(a: argparse.Namespace) -> list[Path]:
    """A map of each method for the most probable classes."""
    from rvis.plotting import grid, overlay, save

    model, image, best = seen(a)
    classes = best[: checks.count("--top", a.top)]
    images = np.repeat(image[None], len(classes), 0)
    columns = [images]
    for method in a.methods:
        options = {"key": a.seed} if method in RANDOM else {}
        function = getattr(rvis.attribution, method)
        result = function(model, images, classes, progress=not a.quiet, **options)
        result.save(a.out / method)
        columns.append(overlay(images, result.heatmaps(), style="map"))
    rows = list(zip(*columns, strict=True))
    names = [model.classes[k] if model.classes else f"class {k}" for k in classes]
    save(grid(rows, titles=("image", *a.methods), row_titles=names), a.out / "figure.png")
    return [a.out / "figure.png"]


def attack(a: argparse.Namespace) -> list[Path]:
    """The picture changed so that the network takes it for something else."""
    model, image, best = seen(a)
    options: dict[str, Any] = {} if a.steps is None or a.attack == "fgsm" else {"steps": a.steps}
    result = getattr(rvis.attacks, a.attack)(
        model,
        image,
        best[0],
        norm=a.norm,
        eps=a.eps,
        target=a.target,
        key=a.seed,
        progress=not a.quiet,
        **options,
    )
    result.save(a.out)
    after = int(np.ravel(result.predictions)[0])
    print(f"taken for: {model.classes[after] if model.classes else f'class {after}'}")
    return [a.out / "figure.png"]


def gallery(words: Sequence[str]) -> int:
    """The page of evidence, which a checkout has beside the package."""
    sys.path.insert(0, str(Path(rvis.__file__).resolve().parents[1]))
    try:
        module = importlib.import_module("scripts.gallery.__main__")
    except ModuleNotFoundError:
        print("rvis gallery: a checkout was expected; the package has no scripts", file=sys.stderr)
        return 2
    return int(module.main(list(words)))


def parser() -> argparse.ArgumentParser:
    """What the words mean."""
    raw = argparse.RawDescriptionHelpFormatter
    examples = "examples:\n  " + "\n  ".join(EXAMPLES.values())
    p = argparse.ArgumentParser("rvis", description=rvis.__doc__, epilog=examples)
    p.formatter_class = raw
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, about: str, run: Any) -> argparse.ArgumentParser:
        text = f"example:\n  {EXAMPLES[name]}"
        c = commands.add_parser(name, help=about, description=about, epilog=text)
        c.formatter_class = raw
        c.set_defaults(run=run)
        return c

    for name, about in (
        ("visualize", "Pictures of units of a layer, or of classes."),
        ("sweep", "Pictures of a whole layer, with a page to browse it by; goes on after a kill."),
    ):
        c = command(name, about, pictures)
        c.add_argument("model", help="a name, a file or a folder that rvis.load reads")
        c.add_argument("layer", help="a name of model.layers, or logits for the classes")
        c.add_argument("--units", nargs="+", help="numbers, or names of classes; all by default")
        c.add_argument("--size", type=int, help="pixels of a side; the network's own by default")
        c.add_argument("--image", choices=IMAGES, default="fourier")
        c.add_argument("--facets", type=int, default=1, help="pictures of each unit")
        c.add_argument("--steps", type=int, default=256)
    c = command("dream", "DeepDream on a photograph.", dream)
    c.add_argument("picture", type=Path)
    c.add_argument("--layer", help="what is dreamt of; the last with places by default")
    c.add_argument("--guide", type=Path, help="a picture whose features are to be dreamt")
    c.add_argument("--longest", type=int, help="pixels of the longer side")
    c.add_argument("--octaves", type=int, default=4)
    c.add_argument("--steps", type=int, default=10)
    c = command("attribute", "Which pixels caused the network's first classes.", attribute)
    c.add_argument("picture", type=Path)
    c.add_argument("--methods", nargs="+", default=list(METHODS[:4]), choices=METHODS)
    c.add_argument("--top", type=int, default=1, help="classes, by their logits")
    c = command("attack", "A small change after which the network says something else.", attack)
    c.add_argument("picture", type=Path)
    c.add_argument("--attack", default="pgd", choices=ATTACKS)
    c.add_argument("--eps", type=float, default=8 / 255, help="radius, of pixels in [0, 1]")
    c.add_argument("--norm", default="linf", choices=("linf", "l2", "l1"))
    c.add_argument("--target", help="the class that it is to be taken for; any other by default")
    c.add_argument("--steps", type=int, help="the attack's own by default")
    for name, c in commands.choices.items():
        if name not in ("visualize", "sweep"):
            c.add_argument("--model", default="cifar10_resnet_robust")
        c.add_argument("--weights", help="a file of weights, for an architecture's name")
        c.add_argument("--seed", type=int, default=0)
        c.add_argument("--quiet", action="store_true", help="no progress bar")
        c.add_argument("--out", type=Path, default=Path("out", name), help=f"out/{name}")
    commands.add_parser("gallery", add_help=False, help="The page of evidence (checkouts only).")
    return p


def reported(goes_on: bool = False) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Makes errors of a script's `main` one line and status 2; `goes_on` after Ctrl-C, or not."""
    wrong = ValueError, TypeError, OSError, ImportError, FloatingPointError
    left = "interrupted" + "; the same command goes on from here" * goes_on

    def decorated(main: Callable[..., int]) -> Callable[..., int]:
        path = Path(main.__globals__["__file__"])
        name = path.parent.name if path.stem == "__main__" else path.name

        @functools.wraps(main)
        def told(arguments: Sequence[str] | None = None) -> int:
            try:
                return main(arguments)
            except wrong as error:
                print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
            except KeyboardInterrupt:
                print(f"{name}: {left}", file=sys.stderr)
                return 130
            return 2

        return told

    return decorated


@reported()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and prints what it wrote; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["gallery"]:
        return gallery(words[1:])
    a = parser().parse_args(words)
    for path in a.run(a):
        print(path)
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
