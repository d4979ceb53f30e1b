"""Documentation at a small size: a network of few channels for every name, and steps in name."""

from __future__ import annotations

import ast
import functools
import inspect
import json
import pathlib
import re
import typing

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

import rvis
from rvis.data import imagenet
from rvis.engine import programs
from rvis.models import architectures
from rvis.types import identity

ROOT = pathlib.Path(rvis.__file__).parents[1]
MOST = {
    "steps": 2,
    "samples": 2,
    "permutations": 2,
    "generations": 1,
    "batch_size": 16,
    "frames": 2,
    "restarts": 1,
    "binary_search_steps": 1,
    "copies": 1,
    "queries": 2,
    "epochs": 1,
    "octaves": 2,
    "draws": 1,
    "width": 1,
    "validation": 4,
}
"""What every call gets at most."""

IMAGES = 32
"""What is taken of a data set at most: enough for every class to be there."""


WIDTHS = {"conv1": 4, "layer1": 8, "layer2": 16, "layer3": 128, "layer4": 32}


def apply(params, images, *, tap=identity, relu=jax.nn.relu):
    """Five 1×1 convolutions with a residual network's names, which compile in no time."""
    x = tap("relu", relu(tap("conv1", images @ params["conv1"])))
    for name in list(WIDTHS)[1:]:
        x = tap(name, relu(x @ params[name]))
        x = x[:, ::4, ::4] if name == "layer1" else x[:, ::2, ::2] if name == "layer2" else x
    x = tap("relu5", x)  # as in AlexNet
    return tap("fc", tap("avgpool", x.mean((1, 2))) @ params["fc"])


@functools.cache
def load(name, **options):
    """A network with a shipped one's classes and names of layers, and random weights."""
    del options
    card = ROOT / "weights" / name / "card.json"
    about = json.loads(card.read_text()) if card.exists() else {"input_shape": (32, 32, 3)}
    classes = tuple(about.get("classes", imagenet.classes()))
    if name.startswith("mnist"):
        config = {"widths": (4, 8), "dense": 8}
        return architectures.build(
            "mnist_cnn", config=config, weights="random", classes=classes, name=name
        )
    rng = np.random.default_rng(0)
    sizes = [3, *WIDTHS.values(), len(classes)]
    params = {
        layer: jnp.asarray(rng.normal(0, before**-0.5, (before, after)), jnp.float32)
        for layer, before, after in zip((*WIDTHS, "fc"), sizes, sizes[1:], strict=False)
    }
    first, *others = WIDTHS
    layers = (first, "relu", *others, "relu5", "avgpool", "fc")
    return rvis.Model(params, apply, layers, tuple(about["input_shape"]), classes, name)


def call(function, *arguments, **keywords):
    """What the code calls, with less of what takes long."""
    if not (getattr(function, "__module__", None) or "").startswith("rvis"):
        return function(*arguments, **keywords)
    for name, most in MOST.items():
        default = defaults(function).get(name, 0)
        asked = keywords.get(name, default)
        if asked is None or asked > most:
            keywords[name] = most
    if getattr(function, "__qualname__", "") == "Dataset.take":
        arguments = (arguments[0][:IMAGES],)
    if "snapshots" in keywords:
        steps = keywords.get("steps", 2)
        keywords["snapshots"] = tuple(sorted({min(step, steps) for step in keywords["snapshots"]}))
    if "progress" in defaults(function):
        keywords["progress"] = False
    return function(*arguments, **keywords)


def still(*arguments, advance=programs.advance, **options):
    """Steps that are traced and not compiled: no state moves, and nothing is told."""
    _, _, made, state, _, _, steps, _ = arguments
    _, _, *found = advance.eval_shape(*arguments, **options)
    return state, made + steps, *jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), found)


def defaults(function):
    """{argument: default}, with those of shared options."""
    found = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            hint = typing.get_type_hints(function).get(parameter.name)
            for options in typing.get_args(hint):
                found |= dict.fromkeys(options.__annotations__)
        elif parameter.default is not parameter.empty:
            found[parameter.name] = parameter.default
    return found


class Small(ast.NodeTransformer):
    """Every call goes through `call`."""

    def visit_Call(self, node):
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in ("range", "print", "zip"):
            return node
        name = ast.Name("_call", ast.Load())
        return ast.Call(name, [node.func, *node.args], node.keywords)


def run(text, space):
    """Executes code at the small size."""
    tree = ast.fix_missing_locations(Small().visit(ast.parse(text)))
    space["_call"] = call
    exec(compile(tree, "documentation", "exec"), space)


def blocks(page):
    """The Python of a Markdown page."""
    return re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def files(folder):
    """The files that the guides read, in `folder`."""
    rng = np.random.default_rng(0)
    for name in ("photo.jpg", "other.jpg"):
        pixels = rng.integers(0, 255, (40, 48, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(folder / name)
    (folder / "scripts").symlink_to(ROOT / "scripts")
