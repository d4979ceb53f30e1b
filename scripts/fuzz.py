"""Gives every argument of every public function wrong values, and looks at how each is refused.

Command:  python scripts/fuzz.py [--calls 10000] [--seed 0] [--only NAME …]
Time:     some five minutes for all on two cores.
Prints:   every call that was not refused as it should be, and how many there were of each kind;
          exit status 1 where there is one.

A call is right where it raises TypeError, ValueError or OSError whose message begins with the name
of an argument, within ten seconds and before anything is compiled.
"""

from __future__ import annotations

import argparse
import collections
import inspect
import random
import re
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where run as a file

import rvis
from rvis import (
    attacks,
    attribution,
    clip,
    concepts,
    data,
    evolve,
    images,
    objectives,
    optimizers,
    plotting,
    post_step,
    projections,
    regularizers,
    style,
    synthesis,
    training,
    transforms,
    visualization,
)
from rvis.analysis import deconv, manifold, metrics, neighbours, patches
from rvis.models import taps
from rvis.types import Relu, Tap, identity

SECONDS = 10.0


def _apply(params: Any, images: Any, *, tap: Tap = identity, relu: Relu = jax.nn.relu) -> Any:
    x = tap("conv", jnp.einsum("nhwc,cd->nhwd", images, params["conv"]))
    x = tap("relu", relu(x))
    return jnp.einsum("nd,dk->nk", tap("pool", x.mean((1, 2))), params["dense"])


def _world() -> dict[str, Any]:
    """What right calls are made of."""
    rng = np.random.default_rng(0)
    shapes = {"conv": (3, 4), "dense": (4, 4)}
    params = {k: jnp.asarray(rng.standard_normal(s), jnp.float32) for k, s in shapes.items()}
    layers, names = ("conv", "relu", "pool"), ("ant", "bee", "cat", "dog")
    pictures = rng.random((2, 8, 8, 3), dtype=np.float32)
    held = rng.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    return {
        "model": rvis.Model(params, _apply, layers, (8, 8, 3), names, "pointwise"),
        "images": pictures,
        "image": pictures[0],
        "maps": rng.random((2, 8, 8)),
        "points": rng.random((40, 5)),
        "dataset": data.Dataset(held, np.arange(24, dtype=np.int32) % 4, names, "noise"),
        "clip": clip.untrained(clip.SMALL, words=("a", "red", "blue", "circle")),
        "logit": objectives.logit(1),
    }


ONES = ((3, 3), 1.0)
NAN = float("nan")


class _Odd:
    """An object of no kind."""

    def __repr__(self) -> str:
        return "an object"


NO_ARRAYS: dict[str, Any] = {
    "None": None,
    "text": "x",
    "object": _Odd(),
    "ragged": [[1.0], [2.0, 3.0]],
    "texts": np.array(["a", "b"]),
    "objects": np.array([_Odd()], object),
}
"""Wrong for every argument that is an array."""

WRONG: dict[str, dict[str, Any]] = {
    "model": {
        "None": None,
        "text": "mnist_cnn",
        "number": 3,
        "module": types,
        "function": _apply,
        "array": np.zeros((2, 3)),
        "class": rvis.Model,
    },
    "images": NO_ARRAYS
    | {
        "NaN": np.full((2, 8, 8, 3), np.nan, np.float32),
        "one NaN": np.where(np.arange(384).reshape(2, 8, 8, 3) == 77, np.nan, 0.5),
        "infinite": np.full((2, 8, 8, 3), np.inf, np.float32),
        "255": np.full((2, 8, 8, 3), 255.0, np.float32),
        "uint8": np.zeros((2, 8, 8, 3), np.uint8),
        "complex": np.zeros((2, 8, 8, 3), np.complex64),
        "rank 2": np.zeros((8, 8), np.float32),
        "rank 5": np.zeros((1, 2, 8, 8, 3), np.float32),
        "empty": np.zeros((0, 8, 8, 3), np.float32),
        "5 channels": np.zeros((2, 8, 8, 5), np.float32),
    },
    "array": NO_ARRAYS | {"NaN": np.full((40, 5), np.nan), "complex": np.zeros((40, 5), complex)},
    "maps": NO_ARRAYS
    | {
        "NaN": np.full((2, 8, 8), np.nan),
        "another size": np.zeros((2, 5, 5)),
        "complex": np.zeros((2, 8, 8), complex),
    },
    "target": {
        "unknown": "no such class",
        "too large": 10**9,
        "larger": 10**400,
        "negative": -1,
        "fraction": 1.5,
        "NaN": NAN,
        "flag": True,
        "object": _Odd(),
        "three": [0, 1, 2],
        "none": [],
        "fractions": np.array([0.5, 1.5]),
        "a set": {1},
    },
    "number": {
        "NaN": NAN,
        "infinite": float("inf"),
        "less": float("-inf"),
        "text": "x",
        "None": None,
        "list": [1.0, 2.0, 3.0, 4.0, 5.0],
        "object": _Odd(),
        "huge": 10**400,
        "complex": 1j,
        "flag": True,
    },
    "count": {
        "0": 0,
        "negative": -1,
        "fraction": 1.5,
        "NaN": NAN,
        "text": "x",
        "None": None,
        "flag": True,
        "2^31": 2**31,
        "huge": 10**400,
        "list": [1],
        "object": _Odd(),
    },
    "key": {
        "None": None,
        "text": "x",
        "fraction": 1.5,
        "2^70": 2**70,
        "flag": True,
        "object": _Odd(),
        "array": np.zeros(3),
    },
    "choice": {
        "unknown": "no such choice",
        "number": 3,
        "None": None,
        "array": np.zeros(3),
        "object": _Odd(),
        "list": ["l2"],
        "empty": "",
    },
    "flag": {"text": "yes", "number": 1, "None": None, "array": np.ones(3), "object": _Odd()},
    "function": {"number": 3, "text": "x", "array": np.zeros(3)},
    "path": {
        "number": 3,
        "object": _Odd(),
        "NUL": "bad\0name",
        "list": ["a"],
        "array": np.zeros(3),
        "a file's folder": __file__ + "/inside",
    },
    "text": {"number": 3, "None": None, "surrogate": "\ud800", "object": _Odd(), "list": [3]},
    "size": {
        "0": 0,
        "negative": -3,
        "text": "x",
        "fraction": 1.5,
        "triple": (8, 8, 3),
        "object": _Odd(),
        "NaN": (NAN, 8),
        "huge": 10**400,
    },
    "dataset": {"None": None, "array": np.zeros((2, 8, 8, 3)), "text": "x", "object": _Odd()},
    "marks": {"text": "x", "negative": [-1], "fraction": [0.5], "number": 3, "late": [10**6]},
    "callables": {"number": 3, "text": "x", "list": [3], "object": _Odd()},
}
"""Kinds of arguments, and what is wrong for each; None is right where it is the default."""

KINDS = {
    "model": "model other",
    "images": "images image photo content first second source pictures start guide",
    "maps": "maps",
    "array": "points data reference values",
    "target": "target labels classes unit units",
    "number": "eps step_size scale noise keep weight learning_rate alpha tv confidence overshoot "
    "radius high tolerance rate sigma percentile momentum b1 b2 p negative_weight factor least "
    "ratio cosine_power amount most beta about",
    "count": "steps samples chunk restarts octaves frames tile binary_search_steps candidates "
    "permutations generations batch_size cells region draws pixels k columns pad jitter grid "
    "facets directions sample window_size restarts queries context every",
    "key": "key",
    "choice": "norm loss layer method rule kind attack objective colour pooling encoding combine "
    "clean config image_kind style_kind",
    "flag": "progress many histogram flip rescale_schedule alpha_flag",
    "function": "callback",
    "path": "checkpoint out path folder",
    "text": "texts name label",
    "size": "size shape",
    "dataset": "dataset real references",
    "marks": "snapshots",
    "callables": "transforms regularizers post_step optimizer",
}
KIND = {name: kind for kind, names in KINDS.items() for name in names.split()}


class Call(NamedTuple):
    """A right call: a function, its arguments as words of the world or values, and its own kinds.

    Attributes:
      function: a public one.
      right: arguments; a word of `_world` stands for what is there.
      kinds: of arguments whose name means something else elsewhere; None to leave one out.
    """

    function: Callable[..., Any]
    right: dict[str, Any]
    kinds: dict[str, str | None] = {}


_MODEL = {"model": "model", "images": "images"}
_OF = _MODEL | {"target": 1}
_ATTACK = _MODEL | {"labels": 1}
_LAYER = {"layer": "choice"}
_DRAWN = {"size": "size", "samples": "count"}

CALLS: tuple[Call, ...] = (
    Call(rvis.visualize, {"model": "model", "target": 1, "steps": 1}, {"image": "choice"}),
    Call(
        rvis.sweep,
        {"model": "model", "layer": "conv", "units": [1], "steps": 1},
        {"kind": "choice", "image": "choice"},
    ),
    Call(rvis.deepdream, _OF | {"steps": 1, "octaves": 1}),
    Call(
        visualization.zoom,
        {"model": "model", "image": "image", "target": 1, "frames": 2, "steps": 1},
    ),
    Call(rvis.invert, _MODEL | {"layer": "relu", "steps": 1}, {"image": "choice"}),
    Call(
        rvis.match,
        {"model": "model", "source": "image", "target": "image", "layer": "relu", "steps": 1},
        {"target": "images"},
    ),
    Call(
        rvis.interpolate,
        {"model": "model", "first": "image", "second": "image", "layer": "relu", "steps": 1},
    ),
    Call(rvis.record, _MODEL | {"layers": "conv"}, {"layers": "choice"}),
    Call(rvis.layer_shapes, {"model": "model"}),
    Call(rvis.ensemble, {"models": ["model"]}, {"models": "callables", "name": None}),
    Call(
        rvis.load,
        {"name_or_path": "mnist_cnn", "weights": "random"},
        {"name_or_path": "text", "pretrained": None},
    ),
    Call(rvis.evaluate, {"model": "model", "dataset": "dataset"}),
    Call(
        rvis.faithfulness,
        {"model": "model", "objective": "logit", "pictures": "image", "real": "images"},
        {"objective": "callables", "real": "images"},
    ),
    *(
        Call(f, _ATTACK | {"eps": 0.1, "steps": 2})
        for f in (attacks.pgd, attacks.bim, attacks.apgd, attacks.square)
    ),
    *(Call(f, _ATTACK | {"eps": 0.1, "steps": 2}) for f in (attacks.mi_fgsm, attacks.autoattack)),
    *(
        Call(f, _ATTACK | {"steps": 2})
        for f in (attacks.fab, attacks.fmn, attacks.ddn, attacks.hop_skip_jump)
    ),
    Call(attacks.fgsm, _ATTACK | {"eps": 0.1}),
    Call(attacks.deepfool, _ATTACK | {"steps": 2}),
    Call(attacks.carlini_wagner, _ATTACK | {"steps": 2, "binary_search_steps": 1}),
    Call(attacks.lbfgs, _ATTACK | {"steps": 2, "binary_search_steps": 1}),
    Call(
        attacks.fool,
        {"model": "model", "target": 1, "steps": 2},
        {"image": "choice", "start": None},
    ),
    Call(attacks.robustness, _ATTACK | {"epsilons": [0.1], "steps": 2}, {"epsilons": "number"}),
    Call(
        attacks.smallest_epsilon,
        {"model": "model", "attack": attacks.fgsm, "images": "images", "labels": 1, "high": 0.5},
        {"attack": "function"},
    ),
    Call(
        attacks.verify,
        {"model": "model", "attack": attacks.fgsm, "images": "images", "labels": 1, "eps": 0.1},
        {"attack": "function"},
    ),
    Call(
        attacks.distances,
        {"images": "images", "others": "images", "norm": "l2"},
        {"others": "images"},
    ),
    *(
        Call(f, dict(_OF))
        for f in (
            attribution.gradient,
            attribution.guided_backprop,
            attribution.deconvnet,
            attribution.input_x_gradient,
            attribution.grad_cam,
            attribution.grad_cam_plus,
            attribution.layer_gradient_x_activation,
        )
    ),
    *(
        Call(f, _OF | {"samples": 2})
        for f in (attribution.smoothgrad, attribution.vargrad, attribution.rise)
    ),
    Call(attribution.integrated_gradients, _OF | {"steps": 2}),
    Call(
        attribution.occlusion,
        _OF | {"window": 4, "stride": 4},
        {"window": "size", "stride": "size"},
    ),
    Call(
        attribution.shapley, _OF | {"players": 2}, {"players": None, "model": None, "images": None}
    ),
    Call(
        attribution.shapley_sampling,
        _OF | {"players": 2, "permutations": 4},
        {"players": None, "model": None, "images": None},
    ),
    Call(
        clip.encode_image,
        {"clip": "clip", "images": np.zeros((1, 64, 64, 3), np.float32)},
        {"clip": "model"},
    ),
    Call(
        clip.encode_text,
        {"clip": "clip", "texts": "a red circle"},
        {"clip": "model", "texts": "text"},
    ),
    Call(
        clip.classifier, {"clip": "clip", "texts": ["red", "blue"]}, {"clip": "model", "name": None}
    ),
    Call(clip.similarity, {"clip": "clip", "texts": "red"}, {"clip": "model"}),
    Call(
        clip.invert,
        {"clip": "clip", "texts": "red", "steps": 1, "copies": 1},
        {"clip": "model", "image": "choice", "start": None},
    ),
    Call(clip.state_dict, {"clip": "clip"}, {"clip": "model"}),
    Call(clip.load, {"name_or_path": "scenes"}, {"name_or_path": "path"}),
    Call(data.load, {"path": "nowhere"}),
    Call(data.read_image, {"path": "nowhere.png"}),
    Call(evolve.map_elites, {"model": "model", "generations": 1, "batch_size": 4}),
    Call(evolve.roughness, {"images": "images"}),
    Call(images.named, {"kind": "pixel", "shape": (8, 8, 3)}, {"kind": "choice"}),
    Call(objectives.channel, {"layer": "conv", "unit": 1}, {"unit": None}),
    Call(
        objectives.direction,
        {"layer": "conv", "vector": np.ones(4)},
        {"vector": "array"},
    ),
    Call(
        objectives.match,
        {"layer": "conv", "target": np.ones(4)},
        {"target": "array"},
    ),
    Call(
        objectives.gram,
        {"layer": "conv", "target": np.ones((4, 4))},
        {"target": "array"},
    ),
    Call(optimizers.adam, {}),
    Call(optimizers.nadam, {}),
    Call(optimizers.sgd, {"learning_rate": 0.1}),
    Call(optimizers.steepest, {"learning_rate": 0.1}),
    Call(optimizers.gain, {}),
    Call(plotting.grid, {"images": "images"}, {"alpha": "flag", "scale": "count"}),
    Call(plotting.overlay, {"images": "images", "maps": "maps"}, {"style": "choice"}),
    Call(plotting.spritemap, {"images": "images"}, {"alpha": "flag"}),
    Call(post_step.blur, {"sigma": 1.0}),
    Call(post_step.decay, {"rate": 0.1}),
    Call(post_step.small_norm, {"percentile": 5.0}),
    Call(post_step.small_contribution, {"percentile": 5.0}),
    Call(post_step.yosinski, {"recipe": 1}, {"recipe": "count"}),
    Call(projections.LinfBall, {"centre": "image", "radius": 0.1}),
    Call(projections.L2Ball, {"centre": "image", "radius": 0.1}),
    Call(regularizers.alpha_norm, {"weight": 1.0}),
    Call(regularizers.blur, {"weight": 1.0}),
    Call(regularizers.l1, {"weight": 1.0}),
    Call(regularizers.opacity, {"weight": 1.0}),
    Call(regularizers.total_variation, {"weight": 1.0}),
    Call(regularizers.distance, {"weight": 1.0, "reference": "image"}, {"reference": "images"}),
    Call(style.match_histogram, {"image": "image", "reference": "image"}, {"reference": "images"}),
    Call(style.statistics, _MODEL | {"layers": ["conv"]}),
    Call(style.texture, {"model": "model", "image": "image", "layers": ["conv"], "steps": 1}),
    Call(
        style.transfer,
        {
            "model": "model",
            "content": "image",
            "style": "image",
            "content_layers": ["relu"],
            "style_layers": ["conv"],
            "steps": 1,
        },
        {"style": "images", "start": None},
    ),
    Call(synthesis.inpaint, _OF | {"mask": np.ones((8, 8)), "steps": 1}, {"mask": "maps"}),
    Call(synthesis.translate, _OF | {"steps": 1}),
    Call(synthesis.super_resolve, _OF | {"factor": 2, "steps": 1}, {"factor": "count"}),
    Call(
        training.model_soup,
        {"models": ["model"], "images": "images"},
        {"models": "callables", "images": None},
    ),
    Call(transforms.lucid, {"size": 32}, {"size": "count"}),
    Call(transforms.maco, {"size": 32}, {"size": "count"}),
    Call(manifold.intrinsic_dimension, {"points": "points", "k": 5}),
    Call(manifold.local_dimension, {"points": "points", "reference": "points", "k": 5}),
    Call(manifold.distance_to_data, {"points": "points", "data": "points", "k": 5}),
    Call(manifold.linear_shift, _OF | {"eps": 0.1}),
    Call(metrics.deletion, _OF | {"maps": "maps"}),
    Call(metrics.insertion, _OF | {"maps": "maps"}),
    Call(metrics.pixel_flipping, _OF | {"maps": "maps", "steps": 2, "draws": 1}),
    Call(metrics.infidelity, _OF | {"maps": "maps", "samples": 2}),
    Call(
        metrics.max_sensitivity,
        _OF | {"attribute": attribution.gradient, "samples": 2},
        {"attribute": "function"},
    ),
    Call(
        metrics.sanity_check, _OF | {"attribute": attribution.gradient}, {"attribute": "function"}
    ),
    Call(metrics.mean, {"values": np.arange(9.0)}),
    Call(metrics.share, {"hits": np.array([True, False])}, {"hits": "array"}),
    Call(
        metrics.spearman, {"first": "maps", "second": "maps"}, {"first": "maps", "second": "maps"}
    ),
    Call(metrics.structural_similarity, {"first": "image", "second": "image"}, {"window": "count"}),
    Call(metrics.alignment, {"images": "images", "maps": "maps"}),
    Call(
        neighbours.nearest,
        {"model": "model", "queries": "images", "dataset": "dataset", "layer": "relu"},
        {"queries": "images"},
    ),
    Call(
        patches.top_activations,
        {"model": "model", "layer": "relu", "units": [1], "dataset": "dataset", "k": 1},
    ),
    Call(deconv.first_layer_filters, {"model": "model"}),
    Call(concepts.groups.factorize, {"model": "model", "image": "image", "layer": "relu", "k": 1}),
    Call(concepts.groups.nmf, {"activations": np.ones((6, 4)), "k": 1}, {"activations": "array"}),
    Call(concepts.groups.coloured, {"image": "image", "maps": "maps"}),
    Call(taps.record, _MODEL | {"layers": "conv"}, {"layers": "choice"}),
)


FAIR = {
    ("alpha", "None"): "no transparency",
    ("pad", "0"): "no border",
    ("jitter", "0"): "no jitter",
    ("images", "5 channels"): "pictures have any number of channels",
    ("images", "rank 5"): "rows and columns of pictures",
    ("target", "three"): "three classes, where images do not say how many",
    ("units", "three"): "three units",
    ("units", "a set"): "one unit",
    ("classes", "three"): "three classes",
    ("shape", "triple"): "a shape",
    ("epsilons", "list"): "five radii",
    ("ratio", "list"): "five ratios",
    ("cosine_power", "list"): "five powers",
    ("layer", "unknown"): "which layers there are is known when a model is",
    ("layer", "empty"): "likewise",
    ("eps", "infinite"): "all of [0, 1]",
    ("vector", "NaN"): "refused then, too",
}
"""What may be taken, and why."""


class Verdict(NamedTuple):
    """One call, and what came of it: "refused" is right."""

    function: str
    argument: str
    value: str
    verdict: str
    words: str


def title(function: Callable[..., Any]) -> str:
    """Its name with that of its module."""
    return f"{function.__module__.removeprefix('rvis.')}.{function.__qualname__}"


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """{argument: default}, those in shared options too (without a default: `...`)."""
    import typing

    arguments: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            hint = typing.get_type_hints(function).get(name)
            for options in typing.get_args(hint):
                names = typing.get_type_hints(options) if isinstance(options, type) else {}
                arguments |= dict.fromkeys(names, ...)
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            arguments[name] = parameter.default
    return arguments


def attempts() -> Iterator[tuple[Call, str, str, Any]]:
    """Every call that is to be made: (call, argument, title of the value, value)."""
    for call in CALLS:
        for argument, default in parameters(call.function).items():
            kind = call.kinds.get(argument, KIND.get(argument))
            for name, value in WRONG.get(kind or "", {}).items():
                # What may be left out is None there.
                optional = default is None or default is ...
                if value is None and (optional or argument in ("units", "target")):
                    continue
                yield call, argument, name, value


def tried(call: Call, argument: str, name: str, value: Any, world: dict[str, Any]) -> Verdict:
    """What a call with one wrong argument comes to."""

    def word(entry: Any) -> Any:
        if isinstance(entry, list):
            return [word(each) for each in entry]
        return world.get(entry, entry) if isinstance(entry, str) else entry

    arguments = {key: word(entry) for key, entry in call.right.items()} | {argument: value}
    if "progress" in parameters(call.function) and argument != "progress":
        arguments["progress"] = False
    compiled: list[str] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    begun = time.monotonic()
    try:
        call.function(**arguments)
        verdict, words = "fair" if (argument, name) in FAIR else "taken", ""
    except (TypeError, ValueError, OSError) as error:
        words = str(error).splitlines()[0] if str(error) else ""
        named = re.match(r"(?:\[Errno \d+\] )?([a-z_0-9]+)( [a-z_0-9]+)?: ", words)
        verdict = "refused" if named else f"from inside ({type(error).__name__})"
    except Exception as error:
        verdict, words = f"from inside ({type(error).__name__})", str(error)[:200]
    finally:
        jax.monitoring.clear_event_listeners()
    if verdict == "fair":
        return Verdict(title(call.function), argument, name, verdict, words)
    if verdict == "refused" and compiled:
        verdict = "compiled first"
    if time.monotonic() - begun > SECONDS:
        verdict = "slow"
    return Verdict(title(call.function), argument, name, verdict, words)


def run(calls: int, seed: int, only: list[str] | None = None) -> list[Verdict]:
    """The verdicts of so many calls at most, drawn without replacement."""
    chosen = [each for each in attempts() if not only or title(each[0].function) in only]
    random.Random(seed).shuffle(chosen)
    world = _world()
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import contextlib
        import os

        before = os.getcwd()
        os.chdir(place)
        try:
            with contextlib.redirect_stdout(None):
                return [tried(*each, world) for each in chosen[:calls]]
        finally:
            os.chdir(before)


def main(arguments: list[str] | None = None) -> int:
    """Runs and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--calls", type=int, default=10_000)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--only", nargs="+", help="functions, as they are printed")
    a = p.parse_args(arguments)
    verdicts = run(a.calls, a.seed, a.only)
    for v in sorted(verdicts):
        if v.verdict not in ("refused", "fair"):
            print(f"{v.function}({v.argument}={v.value}): {v.verdict} {v.words}")
    for verdict, count in collections.Counter(v.verdict for v in verdicts).most_common():
        print(f"{count:6} {verdict}")
    return int(any(v.verdict not in ("refused", "fair") for v in verdicts))


if __name__ == "__main__":
    sys.exit(main())
