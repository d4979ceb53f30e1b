"""What a network saw in a picture: attribution methods for its top classes, on the picture itself.

Command:  python scripts/attribute.py IMAGE [--model MODEL] [--top 3] [--out FOLDER]
          python scripts/attribute.py IMAGE --model vgg16 --pretrained --trunk --layer relu5_3
Time:     minutes on two cores for a 32-pixel network and one class; with one of 224 pixels choose
          `--methods`: RISE's 4000 masks take an hour.
Prints:   the top classes with their probabilities, and where the figure is. `attribution.png` has a
          row for each class and a column for each method, maps laid over the whole picture at its
          own resolution; a folder for each method holds its maps as numbers and its pictures.
IMAGE is any picture, prepared as the model's training has it; MODEL a name of `rvis.list_models()`
or a path that `rvis.load` reads (an architecture needs `--weights` or
`--pretrained`; `--trunk` for those without the classifier).
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np

import rvis
from rvis import attribution, objectives
from rvis.__main__ import reported
from rvis.models.tokens import TokenGrid
from rvis.plotting import grids

METHODS = (
    "gradient",
    "input_x_gradient",
    "integrated_gradients",
    "guided_integrated_gradients",
    "blur_integrated_gradients",
    "smoothgrad",
    "vargrad",
    "guided_backprop",
    "deconvnet",
    "deep_lift",
    "full_gradient",
    "lrp",
    "grad_cam",
    "grad_cam_plus",
    "xgrad_cam",
    "hires_cam",
    "layer_cam",
    "eigen_cam",
    "score_cam",
    "ablation_cam",
    "layer_gradient_x_activation",
    "attention_rollout",
    "attention_gradient",
    "occlusion",
    "rise",
    "kernel_shap",
    "lime",
)
TITLES = {
    "integrated_gradients": "integrated",
    "guided_integrated_gradients": "guided IG",
    "blur_integrated_gradients": "blur IG",
    "layer_gradient_x_activation": "act x grad",
    "attention_rollout": "rollout",
    "attention_gradient": "att x grad",
}


def methods(model: rvis.Model, a: argparse.Namespace, side: int) -> dict[str, Any]:
    """{method: a function of (model, images, target)} of those that fit the model."""
    quiet = {"progress": not a.quiet}
    patch = {"players": max(1, side // 8), "baseline": 0.5, "key": a.seed}
    options: dict[str, dict[str, Any]] = {
        "smoothgrad": {"key": a.seed},
        "vargrad": {"key": a.seed},
        "occlusion": {"window": max(2, side // 5), "stride": max(1, side // 16), "baseline": 0.5},
        "rise": {"key": a.seed, "samples": a.masks, "baseline": 0.5},
        "kernel_shap": patch,
        "lime": patch,
    }
    fitting = {}
    for name in a.methods or METHODS:
        rvis.checks.choice("--methods", name, METHODS)
        if name.startswith("attention") and not isinstance(model.apply, TokenGrid):
            continue
        function = getattr(attribution, name)
        fitting[name] = functools.partial(function, **quiet, **options.get(name, {}))
    return fitting


def figure(
    model: rvis.Model,
    path: Path,
    image: np.ndarray,
    target: Any,
    names: list[str],
    a: argparse.Namespace,
) -> list[Path]:
    """Draws all methods for each of some targets; the files written."""
    shown = rvis.data.read_image(path)
    if max(shown.shape[:2]) > a.width:
        shown = rvis.data.read_image(path, longest=a.width)
    shown = np.clip(shown, 0, 1)
    images = np.repeat(image[None], len(names), 0)
    columns, titles = [[shown] * len(names)], ["picture"]
    for name, method in methods(model, a, min(image.shape[:2])).items():
        try:
            result = method(model, images, target)
        except ValueError as error:
            if not str(error).startswith("model:"):
                raise
            print(f"{name} is left out: {error}")
            continue
        result.save(a.out / name)
        maps = [model.restore(own, shown) for own in result.heatmaps()]
        drawn = [grids.overlay(shown[None], own[None], style=a.style)[0] for own in maps]
        columns.append(drawn)
        titles.append(TITLES.get(name, name.replace("_", " ")))
    rows = [[column[i] for column in columns] for i in range(len(names))]
    file = a.out / "attribution.png"
    if len(rows) == 1:
        whole = grids.grid(rows[0], titles=titles, columns=a.columns)
    else:
        whole = grids.grid(rows, titles=titles, row_titles=names)
    grids.save(whole, file)
    return [file]


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Draws and says where; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("image", type=Path)
    p.add_argument("--model", default="cifar10_resnet_robust")
    p.add_argument("--weights", help="a file of weights, for an architecture's name")
    p.add_argument("--pretrained", action="store_true", help="fetches an architecture's weights")
    p.add_argument("--trunk", action="store_true", help="weights without the classifier")
    p.add_argument("--top", type=int, default=3, help="classes, by their logits")
    p.add_argument("--layer", help="channels of it in the place of classes")
    p.add_argument("--units", type=int, nargs="+", default=[0])
    p.add_argument("--methods", nargs="+", help="of those that it has; all by default")
    p.add_argument("--width", type=int, default=480, help="of the picture's longer side, at most")
    p.add_argument("--columns", type=int, default=6, help="of the figure for a single class")
    p.add_argument("--masks", type=int, default=4000, help="of RISE")
    p.add_argument("--style", choices=("map", "blend"), default="blend")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    p.add_argument("--out", type=Path, default=Path("out", "attribution"))
    a = p.parse_args(arguments)
    if a.trunk and not (a.layer and (a.weights or a.pretrained)):
        raise ValueError("--trunk: --layer, and --weights or --pretrained, were expected too")
    model = rvis.load(
        a.model,
        weights=a.weights,
        pretrained="trunk" if a.pretrained and a.trunk else a.pretrained,
        partial="trunk" if a.weights and a.trunk else None,
    )
    rvis.checks.count("--top", a.top)
    image = model.prepare(a.image)
    if a.layer is not None:
        target: Any = objectives.channel(a.layer, np.asarray(a.units, np.int32))
        names = [f"{a.layer}:{unit}" for unit in a.units]
    else:
        logits = np.asarray(model(image))[0]
        target = np.argsort(-logits)[: a.top].astype(np.int32)
        names = [model.classes[c] if model.classes else f"class {c}" for c in target]
        odds = np.exp(logits - logits.max())
        for name, c in zip(names, target, strict=True):
            print(f"{name}: {odds[c] / odds.sum():.1%}")
    written = figure(model, a.image, image, target, names, a)
    for path in written:
        print(path)
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
