"""Gives every argument of every public function wrong values, and looks at how each is refused.

Command:  python scripts/fuzz.py [--calls 10000] [--seed 0] [--only NAME …] [--out FILE.json]
Time:     some ten minutes for all on one core, half of which are right calls.
Prints:   every call that was not refused as it should be, and how many there were of each kind;
          exit status 1 where there is one.

A call is right where it raises TypeError, ValueError or OSError whose message begins with the name
of that argument, within ten seconds and before anything is compiled. First every function is called
rightly, and all numbers that it gives must be finite.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import importlib.util
import inspect
import json
import os
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

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where run as a file

import rvis
from rvis import (
    analysis,
    attacks,
    attribution,
    clip,
    concepts,
    data,
    gate,
    images,
    objectives,
    optimizers,
    plotting,
    post_step,
    projections,
    regularizers,
    synthesis,
    training,
    transforms,
)
from rvis.models.families.vit import ViT
from rvis.types import Relu, Tap, identity

SECONDS = 10.0
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
    "a dictionary": {"a": 1},
}
"""Wrong for every argument that is an array."""

NO_MODELS = {
    "None": None,
    "text": "mnist_cnn",
    "number": 3,
    "module": types,
    "function": len,
    "array": np.zeros((2, 3)),
    "class": rvis.Model,
    "a list": [1],
}

WRONG: dict[str, dict[str, Any]] = {
    "model": NO_MODELS,
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
    "array": NO_ARRAYS
    | {
        "NaN": np.full((40, 5), np.nan),
        "infinite": np.full((40, 5), np.inf),
        "infinite as float32": np.full((40, 5), 1e300),
        "complex": np.zeros((40, 5), complex),
        "empty": np.zeros((0, 5)),
    },
    "maps": NO_ARRAYS
    | {
        "NaN": np.full((2, 8, 8), np.nan),
        "infinite": np.full((2, 8, 8), -np.inf),
        "infinite as float32": np.full((2, 8, 8), 1e300),
        "another size": np.zeros((2, 5, 5)),
        "complex": np.zeros((2, 8, 8), complex),
        "empty": np.zeros((0, 8, 8)),
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
        "bytes": b"ant",
        "complex": 1j,
        "ragged": [[0], [1, 2]],
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
        "bytes": b"1",
        "NaN of JAX": np.float32(NAN),
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
        "infinite": float("inf"),
        "bytes": b"1",
    },
    "key": {
        "None": None,
        "text": "x",
        "fraction": 1.5,
        "2^70": 2**70,
        "flag": True,
        "object": _Odd(),
        "array": np.zeros(3),
        "list": [1, 2],
    },
    "choice": {
        "unknown": "no such choice",
        "number": 3,
        "None": None,
        "array": np.zeros(3),
        "object": _Odd(),
        "list": ["l2"],
        "empty": "",
        "NUL": "l2\0",
    },
    "flag": {
        "text": "yes",
        "number": 1,
        "None": None,
        "array": np.ones(3),
        "object": _Odd(),
        "list": [True],
        "NaN": NAN,
    },
    "function": {"number": 3, "text": "x", "array": np.zeros(3), "list": [len]},
    "path": {
        "number": 3,
        "object": _Odd(),
        "NUL": "bad\0name",
        "list": ["a"],
        "array": np.zeros(3),
        "a file's folder": __file__ + "/inside",
        "bytes": b"x",
        "too long": "a" * 5000,
    },
    "text": {
        "number": 3,
        "None": None,
        "surrogate": "\ud800",
        "object": _Odd(),
        "list": [3],
        "bytes": b"a",
    },
    "size": {
        "0": 0,
        "negative": -3,
        "text": "x",
        "fraction": 1.5,
        "triple": (8, 8, 3),
        "object": _Odd(),
        "NaN": (NAN, 8),
        "huge": 10**400,
        "None": None,
    },
    "shape": {
        "0": (0, 8, 3),
        "negative": (8, -8, 3),
        "text": "x",
        "fraction": (8, 8, 1.5),
        "pair": (8, 8),
        "number": 8,
        "object": _Odd(),
        "huge": (10**400, 8, 3),
    },
    "dataset": {"None": None, "array": np.zeros((2, 8, 8, 3)), "text": "x", "object": _Odd()},
    "marks": {"text": "x", "negative": [-1], "fraction": [0.5], "number": 3, "late": [10**6]},
    "callables": {"number": 3, "text": "x", "list": [3], "object": _Odd(), "texts": ["x"]},
    "odd": {"number": 3, "text": "\ud800", "object": _Odd(), "array": np.zeros(3), "function": len},
}
"""Kinds of arguments, and what is wrong for each; None is right where it is the default."""

KINDS = {
    "model": "model other clip module",
    "images": "images image content first second source pictures start guide examples centre",
    "maps": "maps mask masks",
    "array": "points data reference values activations vector tensor features layout hits segments "
    "tokens exclude",
    "target": "target labels unit",
    "number": "eps step_size scale noise keep weight learning_rate alpha tv confidence overshoot "
    "radius high tolerance rate sigma percentile momentum b1 b2 p negative_weight factor "
    "ratio cosine_power amount most beta about decay diversity initial gamma epsilon fraction "
    "reach compactness tol width ridge penalty epsilons sd fill side spread weight_decay "
    "label_smoothing ema awp",
    "count": "steps samples chunk restarts octaves frames tile binary_search_steps candidates "
    "permutations generations batch_size cells region draws pixels k columns pad jitter grid "
    "facets directions sample window_size queries context every bins eot selection sets count "
    "epochs crops active copies validation crop cutout patch least recipe dilation levels small "
    "small_epochs",
    "key": "key",
    "choice": "norm loss layer method rule kind attack objective colour pooling encoding combine "
    "clean config image version composite index image_kind style_kind split layers schedule",
    "flag": "progress many histogram flip rescale_schedule signed quantize best strict pretrained "
    "decorrelate random_start",
    "function": "callback of attribute draw encode_image encode_text",
    "path": "checkpoint out path folder store",
    "text": "texts name label titles words templates negative",
    "size": "size window stride longest",
    "shape": "shape input_shape",
    "dataset": "dataset real references test",
    "marks": "snapshots numbers",
    "callables": "transforms regularizers post_step optimizer models clips through",
    "odd": "concepts measures others positions palette found baseline players groups position "
    "units sizes shares "
    "augment tokenizer weights partial classes mean std call output variables params primitives "
    "state style style_layers content_layers scales seeds adversary start end names random "
    "vocabulary merges picture row_titles towards where function degrees factors statistics",
}
KIND = {name: kind for kind, names in KINDS.items() for name in names.split()}


def _apply(params: Any, images: Any, *, tap: Tap = identity, relu: Relu = jax.nn.relu) -> Any:
    x = tap("conv", jnp.einsum("nhwc,cd->nhwd", images, params["conv"]))
    x = tap("relu", relu(x))
    return jnp.einsum("nd,dk->nk", tap("pool", x.mean((1, 2))), params["dense"])


def _function(params: Any, images: Any) -> Any:
    return images.mean((1, 2)) @ params


class _Linen(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(4)(x.mean((1, 2)))


class _Nnx(nnx.Module):
    def __init__(self) -> None:
        self.dense = nnx.Linear(3, 4, rngs=nnx.Rngs(0))

    def __call__(self, x: Any) -> Any:
        return self.dense(x.mean((1, 2)))


@functools.cache
def _equinox() -> Any:
    eqx: Any = importlib.import_module("equinox")

    class Mean(eqx.Module):  # type: ignore[name-defined]
        dense: Any

        def __call__(self, x: Any) -> Any:
            return self.dense(x.mean((1, 2)))

    return Mean(eqx.nn.Linear(3, 4, key=jax.random.key(0)))


@functools.cache
def _keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = importlib.import_module("keras")
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers])


@functools.cache
def _transformer() -> rvis.Model:
    module = ViT(patch=4, width=8, depth=1, heads=2, image=8, classes=4)
    given = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), given)
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    return rvis.from_linen(module, drawn, input_shape=(8, 8, 3))


@functools.cache
def towers() -> clip.CLIP:
    """A CLIP that takes longer to make than all else."""
    config = clip.Config(8, 8, 8, 1, 1, 0, 8, 1, 1, 0, 8, 12, 4)
    return clip.untrained(config, words=("a", "red", "blue", "circle"))


@functools.cache
def world() -> dict[str, Any]:
    """What a right call gives for an argument of each name, where it must, or to be short."""
    rng = np.random.default_rng(0)
    shapes = {"conv": (3, 4), "dense": (4, 4)}
    params = {k: jnp.asarray(rng.standard_normal(s), jnp.float32) for k, s in shapes.items()}
    layers, names = ("conv", "relu", "pool"), ("ant", "bee", "cat", "dog")
    pictures = rng.random((2, 8, 8, 3), dtype=np.float32)
    held = rng.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    maps = rng.random((2, 8, 8))
    model = rvis.Model(params, _apply, layers, (8, 8, 3), names, "pointwise")
    return {
        "model": model,
        "models": [model, model],
        "images": pictures,
        "image": pictures[0],
        "first": pictures[0],
        "second": pictures[0] / 2,
        "source": pictures[0],
        "content": pictures[0],
        "style": pictures[1],
        "reference": pictures[1],
        "pictures": pictures[0],
        "real": pictures,
        "examples": rng.random((12, 8, 8, 3), dtype=np.float32),
        "random": rng.random((30, 8, 8, 3), dtype=np.float32),
        "maps": maps,
        "masks": maps > 0.5,
        "mask": (maps[0] > 0.5).astype(np.float32),
        "points": rng.random((40, 5)),
        "data": rng.random((40, 5)),
        "values": np.arange(9.0),
        "hits": np.array([True, False]),
        "segments": np.arange(64).reshape(8, 8) // 8,
        "dataset": data.Dataset(held, np.arange(24, dtype=np.int32) % 4, names, "noise"),
        "clip": towers,
        "concepts": concepts.channels("relu", 4),
        "layer": "relu",
        "layers": ["relu"],
        "target": 1,
        "labels": 1,
        "unit": 1,
        "units": [1],
        "eps": 0.1,
        "epsilons": [0.1],
        "norm": "l2",
        "high": 0.5,
        "sigma": 0.1,
        "objective": objectives.logit(1),
        "attribute": attribution.gradient,
        "attack": attacks.fgsm,
        "k": 2,
        "frames": 2,
        "factor": 2,
        "width": 4,
        "sizes": [2],
        "names": ["conv"],
        "texts": ["red"],
        "players": 2,
        "input_shape": (8, 8, 3),
        "shape": (8, 8, 3),
        "path": "nowhere",
        "folder": "somewhere",
        "learning_rate": 0.1,
        "rate": 0.1,
        "weight": 1.0,
        "percentile": 5.0,
        "pixels": 2,
        "recipe": 1,
        "centre": pictures[0],
        "radius": 0.1,
        "start": objectives.logit(1),
        "end": objectives.logit(2),
        "activations": rng.random((2, 4, 4, 3), dtype=np.float32),
        "vector": np.ones(4, np.float32),
        "tensor": np.ones((8, 8, 4), np.float32),
        "features": np.ones((8, 8, 4), np.float32),
        "layout": rng.random((40, 2)),
        "function": _function,
        "params": np.ones((3, 4), np.float32),
        "size": 32,
        "progress": False,
    }


QUICK = {
    "steps": 1,
    "samples": 2,
    "generations": 1,
    "batch_size": 4,
    "octaves": 1,
    "binary_search_steps": 1,
    "draws": 1,
    "permutations": 4,
    "epochs": 1,
    "progress": False,
    "copies": 1,
    "sets": 2,
    "queries": 2,
    "cells": 2,
    "window": 4,
    "stride": 4,
    "generate": 1,
}
"""Arguments that are given although they need not be, lest a call takes long."""

MORE: dict[str, Callable[..., Any]] = {
    f"{module.__name__.removeprefix('rvis.')}.{name}": getattr(module, name)
    for module, names in {
        optimizers: "adam nadam sgd steepest gain",
        post_step: "blur decay small_norm small_contribution yosinski",
        projections: "LinfBall L2Ball L1Ball",
        regularizers: "alpha_norm blur l1 opacity total_variation distance",
        transforms: "Jitter Noise Pad RandomCrop Roll Rotate Scale",
        images: "Pixel Pyramid Fourier MACO CPPN",
        training: "Adversary Recipe",
        data: "Dataset",
        analysis.neighbours: "nearest",
        analysis.patches: "top_activations",
        analysis.deconv: "reconstruct plates centred first_layer_filters",
        analysis.representations: "penultimate encode distances relative_errors psnr ssim spread",
        concepts.groups: "factorize coloured",
        concepts.factors: "nmf",
        plotting.films: "film",
        images.statistics: "load",
    }.items()
    for name in names.split()
}
"""What is public and no function of a module's `__all__`."""

LEFT = {
    **dict.fromkeys(
        ("projections.LinfBall.centre", "projections.L2Ball.centre", "projections.L1Ball.centre"),
        "a leaf, where JAX puts what it likes while it takes a pytree apart",
    ),
    "from_equinox.state": "what it is, the module knows",
    "engine": "what algorithms are built of: arguments are other algorithms'",
    "objectives.check": "it is called by functions that are tried, with their arguments",
    "objectives.target": "likewise",
    "transforms.apply": "likewise",
    "transforms.draws": "likewise",
    "transforms.frame": "likewise",
    "list_models": "it takes nothing",
    "clip.list_clips": "it takes nothing",
}
"""What is not tried, and why."""


@functools.cache
def own() -> dict[str, dict[str, Any]]:
    """What right calls of some functions give, where it is not what the name stands for."""
    w = world()
    grey = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 1), dtype=np.uint8)
    digits = data.Dataset(grey, np.arange(8, dtype=np.int32), tuple("0123456789"), "noise")
    dense = {"kernel": np.ones((3, 4), np.float32), "bias": np.ones(4, np.float32)}
    variables = {"params": {"Dense_0": dense}}
    seeds = synthesis.Seeds(
        w["model"].classes, np.zeros((4, 2, 2, 3), np.float32), np.zeros((4, 12, 12), np.float32)
    )
    games = ("shapley", "shapley_sampling", "kernel_shap", "lime", "shapley_interactions")
    of = {"images": w["images"], "target": 1, "samples": 4}
    net = rvis.load("mnist_cnn", weights="random")
    zeros = np.zeros(4)
    top = np.zeros((4, 9)), np.zeros((4, 9), int), np.zeros((4, 9, 2), int)
    measures = concepts.Measures(*top, zeros, zeros, zeros, zeros, 0.5, 1.0)
    found: dict[str, dict[str, Any]] = {f"attribution.{name}": of for name in games} | {
        "analysis.receptive.receptive_field": {"layer": "conv", "size": None},
        "analysis.metrics.sensitivity_n": {"sizes": [2]},
        "analysis.metrics.pointing_game": {"masks": w["masks"]},
        "analysis.manifold.local_dimension": {"reference": w["points"]},
        "analysis.metrics.structural_similarity": {"window": 3},
        "attacks.distances": {"others": w["images"], "norm": "l2"},
        "attacks.patch": {"size": 2},
        "attribution.attention_gradient": {"model": _transformer},
        "attribution.attention_rollout": {"model": _transformer},
        "attribution.expected_gradients": {"data": w["images"]},
        "attribution.xrai": {"segments": None},
        "attribution.superpixels": {"segments": 4},
        "clip.encode_image": {"images": np.zeros((1, 8, 8, 3), np.float32)},
        "clip.encode_tokens": {"tokens": np.zeros((1, 8), np.int32)},
        "clip.invert": {"sizes": [8]},
        "clip.save": {"about": {}},
        "clip.load": {"name_or_path": "scenes"},
        "clip.untrained": {"config": clip.SMALL},
        "clip.ensemble": {"clips": lambda: [towers()]},
        "clip.byte_pairs": {"vocabulary": {"a": 0, "b": 1, "ab": 2}, "merges": [("a", "b")]},
        "concepts.label": {
            "pictures": np.zeros((2, 2, 4, 4, 3)),
            "encode_image": lambda x: x.mean((1, 2, 3))[:, None],
            "encode_text": lambda texts: np.ones((len(texts), 1)),
        },
        "concepts.relevance": {"count": 2},
        "concepts.save": {"path": "concepts.safetensors"},
        "concepts.compare": {"measures": measures, "others": measures},
        "data.load": {"path": "pictures", "size": None},
        "data.read_image": {"path": "pictures/train/ant/0.png", "size": None},
        "from_equinox": {"module": _equinox},
        "from_keras": {"module": _keras, "input_shape": None},
        "from_linen": {"module": lambda: _Linen(), "variables": variables},
        "from_nnx": {"module": lambda: _Nnx()},
        "images.named": {"kind": "pixel"},
        "images.estimate": {"images": w["dataset"].images},
        "style.statistics": {"layers": ["conv"]},
        "analysis.representations.ssim": {"first": w["images"], "second": w["images"] / 2},
        "activation_grid": {"images": w["image"]},
        "analysis.neighbours.nearest": {"queries": w["images"]},
        "analysis.deconv.reconstruct": {"units": [1, 2]},
        "analysis.representations.relative_errors": {
            "found": w["points"],
            "references": w["points"],
        },
        "analysis.representations.spread": {"pictures": w["images"]},
        "analysis.deconv.centred": {"signed": w["images"]},
        "concepts.factors.nmf": {"activations": np.ones((6, 4)), "start": "nndsvd"},
        "concepts.groups.factorize": {"start": "nndsvd", "k": 2},
        "concepts.groups.coloured": {"maps": w["maps"]},
        "plotting.films.film": {"frames": [Image.new("RGB", (4, 4))] * 2, "path": "film.gif"},
        "analysis.metrics.alignment": {"maps": w["images"]},
        "objectives.gram": {"target": np.ones((4, 4))},
        "objectives.match": {"target": np.ones(4)},
        "objectives.interpolate": {},
        "objectives.function": {"call": lambda activations: activations["relu"].sum()},
        "plotting.save": {"picture": Image.new("RGB", (4, 4)), "path": "picture.png"},
        "plotting.overlay": {"style": "beside"},
        "load": {"name_or_path": "mnist_cnn", "weights": "random"},
        "card": {"name": "mnist_cnn"},
        "match": {"target": w["second"], "start": "source"},
        "style.texture": {"layers": ["conv"], "size": None},
        "style.transfer": {"style_layers": ["conv"], "content_layers": ["relu"]},
        "synthesis.super_resolve": {"target": 1},
        "synthesis.generate": {"size": None, "seeds": seeds},
        "synthesis.load": {},
        "train": {
            "model": net,
            "dataset": digits,
            "recipe": training.Recipe(epochs=1, batch_size=4),
        },
        "activation_atlas": {
            "least": 1,
            "activations": np.random.default_rng(0).random((40, 4)),
        },
        "visualization.zoom": {"target": 1},
        "data.Dataset": {
            "images": grey,
            "labels": np.arange(8, dtype=np.int32),
            "classes": tuple("0123456789"),
            "name": "noise",
        },
        "training.model_soup": {"models": [net, net], "images": grey},
        "training.Adversary": {"norm": "l2"},
        "transforms.Noise": {"sd": 0.1},
        "transforms.Rotate": {"degrees": (-5.0, 5.0)},
        "transforms.Scale": {"factors": (0.9, 1.1)},
        "images.CPPN": {"size": None},
    }
    return found


OTHERWISE = {
    "attacks.robustness.attack": "choice",
    "attacks.robustness.epsilons": "number",
    "attacks.fool.start": "images",
    "attacks.fool.objective": "choice",
    "attacks.hop_skip_jump.start": "images",
    "attacks.distances.others": "images",
    "analysis.metrics.pointing_game.tolerance": "count",
    "analysis.neighbours.nearest.queries": "images",
    "analysis.neighbours.nearest.exclude": "array",
    "analysis.deconv.centred.signed": "maps",
    "analysis.representations.distances.first": "array",
    "analysis.representations.distances.second": "array",
    "analysis.representations.relative_errors.found": "array",
    "analysis.representations.relative_errors.references": "array",
    "analysis.representations.psnr.first": "array",
    "analysis.representations.psnr.second": "array",
    "analysis.representations.ssim.first": "array",
    "analysis.representations.ssim.second": "array",
    "concepts.factors.nmf.start": "choice",
    "analysis.representations.spread.pictures": "array",
    "concepts.groups.factorize.image": "images",
    "concepts.groups.coloured.image": "images",
    "style.match_histogram.image": "images",
    "style.texture.image": "images",
    "visualization.zoom.image": "images",
    "concepts.groups.coloured.maps": "maps",
    "concepts.groups.factorize.start": "choice",
    "plotting.films.film.frames": "callables",
    "analysis.metrics.spearman.first": "maps",
    "analysis.metrics.spearman.second": "maps",
    "analysis.metrics.structural_similarity.window": "count",
    "analysis.manifold.linear_shift.target": "images",
    "attribution.expected_gradients.data": "images",
    "attribution.superpixels.segments": "count",
    "attribution.lrp.through": "odd",
    "attribution.lrp.composite": "choice",
    "attribution.integrated_gradients.rule": "choice",
    "analysis.metrics.faithfulness_correlation.size": "count",
    "clip.save.about": "odd",
    "clip.save.folder": "path",
    "clip.untrained.config": "odd",
    "clip.load.config": "odd",
    "clip.load.name_or_path": "path",
    "clip.invert.image": "choice",
    "clip.invert.start": "images",
    "clip.invert.tv": "number",
    "clip.untrained.words": "odd",
    "concepts.channels.width": "count",
    "images.CPPN.layers": "count",
    "images.CPPN.width": "count",
    "concepts.train_sae.width": "count",
    "concepts.tcav.random": "images",
    "concepts.tcav.examples": "images",
    "concepts.label.pictures": "array",
    "concepts.report.name": "function",
    "concepts.compare.others": "odd",
    "concepts.relevance.count": "count",
    "data.Dataset.images": "odd",
    "data.Dataset.labels": "odd",
    "data.Dataset.classes": "odd",
    "faithfulness.objective": "odd",
    "faithfulness.real": "images",
    "images.estimate.images": "odd",
    "interpolate.first": "images",
    "load.name_or_path": "path",
    "load.pretrained": "flag",
    "card.name": "path",
    "match.target": "images",
    "match.start": "images",
    "objectives.gram.target": "array",
    "objectives.match.target": "array",
    "objectives.interpolate.start": "odd",
    "objectives.interpolate.end": "odd",
    "objectives.function.call": "function",
    "objectives.guide.features": "array",
    "objectives.gram_cosine.activations": "array",
    "objectives.gram_matrix.activations": "array",
    "plotting.grid.alpha": "flag",
    "plotting.grid.scale": "count",
    "plotting.spritemap.alpha": "flag",
    "plotting.overlay.style": "choice",
    "regularizers.distance.reference": "images",
    "style.match_histogram.reference": "images",
    "style.texture.size": "size",
    "style.transfer.style": "images",
    "style.transfer.start": "images",
    "synthesis.super_resolve.factor": "count",
    "synthesis.inpaint.mask": "maps",
    "transforms.RandomCrop.centre": "number",
    "transforms.lucid.size": "count",
    "transforms.maco.size": "count",
    "train.recipe": "odd",
    "train.model": "model",
    "training.Recipe.beta": "number",
    "visualization.zoom.target": "target",
    "visualize.image": "choice",
    "visualize.start": "images",
}
"""Kinds where a name means something else than elsewhere."""

PACKAGES = {
    "from_equinox": "equinox",
    "from_keras": "keras",
    "clip.byte_pairs": "tokenizers",
    "clip.read_byte_pairs": "tokenizers",
}
"""What some need, without which they are left out."""

FAIR = {
    ("style.match_histogram", "image", "5 channels"): "which of two does not fit is open",
    ("concepts.groups.factorize", "classes", "number"): "one class",
    ("concepts.groups.coloured", "maps", "another size"): "they are enlarged",
    ("concepts.groups.coloured", "image", "5 channels"): "any number",
    ("units", "number"): "one unit",
    ("signed", "another size"): "any size",
    ("clip.load", "tokenizer", "text"): "the file is named",
    ("attacks.distances", "images", "255"): "a distance in these units",
    ("attacks.distances", "others", "255"): "likewise",
    ("analysis.metrics.alignment", "images", "255"): "likewise",
    ("analysis.metrics.alignment", "images", "uint8"): "likewise",
    ("clip.load", "name_or_path", "a file's folder"): "a file that is missing is named",
    ("crop", "0"): "none",
    ("crops", "0"): "none",
    ("cutout", "0"): "none",
    ("small", "0"): "none",
    ("small_epochs", "0"): "none",
    ("validation", "0"): "none",
    ("tolerance", "0"): "none",
    ("mean", "array"): "one number a channel",
    ("output", "function"): "of what the network gives",
    ("params", "number"): "a pytree of arrays",
    ("params", "array"): "likewise",
    ("function", "function"): "what it does is known when it is called",
    ("numbers", "number"): "one concept",
    ("maps", "another size"): "which of two do not fit is open",
    ("first", "another size"): "likewise",
    ("maps", "empty"): "likewise",
    ("images", "rank 2"): "likewise",
    ("images", "empty"): "likewise",
    ("players", "number"): "squares of three pixels, or three players",
    ("dilation", "0"): "no dilation",
    ("pixels", "0"): "no move, no border",
    ("layer", "NUL"): "which layers there are is known when a model is",
    ("objectives.function", "layers", "unknown"): "likewise",
    ("objectives.function", "layers", "list"): "likewise",
    ("objectives.function", "layers", "empty"): "likewise",
    ("objectives.function", "layers", "NUL"): "likewise",
    ("unit", "negative"): "how many units a layer has is known when a model is",
    ("unit", "too large"): "likewise",
    ("unit", "three"): "three units",
    ("towards", "array"): "a colour",
    ("degrees", "array"): "three angles",
    ("factors", "array"): "three factors",
    ("radius", "infinite"): "all of [0, 1]",
    ("radius", "list"): "one for each image",
    ("radius", "None"): "what JAX puts into a pytree that it takes apart",
    ("radius", "object"): "likewise",
    ("radius", "flag"): "likewise",
    ("alpha", "None"): "no transparency",
    ("pad", "0"): "no border",
    ("jitter", "0"): "no jitter",
    ("images", "5 channels"): "pictures have any number of channels",
    ("images", "rank 5"): "rows and columns of pictures",
    ("target", "three"): "three classes, where images do not say how many",
    ("epsilons", "list"): "five radii",
    ("ratio", "list"): "five ratios",
    ("cosine_power", "list"): "five powers",
    ("layer", "unknown"): "which layers there are is known when a model is",
    ("layer", "empty"): "likewise",
    ("eps", "infinite"): "all of [0, 1]",
    ("vector", "NaN"): "refused then, too",
}
"""What may be taken, and why."""


class Attempt(NamedTuple):
    """A call with one wrong argument."""

    function: str
    argument: str
    value: str


class Verdict(NamedTuple):
    """One call, and what came of it: "refused" and "fair" are right."""

    function: str
    argument: str
    value: str
    verdict: str
    words: str


def _public(module: types.ModuleType, path: str = "") -> Iterator[tuple[str, Callable[..., Any]]]:
    for word in getattr(module, "__all__", ()):
        thing = getattr(module, word)
        if inspect.ismodule(thing):
            yield from _public(thing, f"{path}{word}.")
        elif inspect.isfunction(thing):
            yield path + word, thing


@functools.cache
def functions() -> dict[str, Callable[..., Any]]:
    """All that is public, by its shortest path from `rvis`."""
    found: dict[Any, str] = {}
    for title, function in sorted(_public(rvis), key=lambda pair: (pair[0].count("."), pair[0])):
        if not any(f"{title}.".startswith(f"{left}.") for left in LEFT):
            found.setdefault(function, title)
    every = {title: function for function, title in found.items()} | MORE
    absent = {title for title, name in PACKAGES.items() if not importlib.util.find_spec(name)}
    return {title: function for title, function in every.items() if title not in absent}


@functools.cache
def parameters(function: Callable[..., Any]) -> dict[str, bool]:
    """{argument: whether it may be None}, those in shared options too."""
    plain = inspect.signature(function).parameters
    arguments = {}
    for name, said in gate.said_of(function).items():
        parameter = plain.get(name)
        if name[0] != "_" and (parameter is None or parameter.kind not in _MANY):
            arguments[name] = "None" in said or (
                parameter is not None and parameter.default is None
            )
    return arguments


_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def kind(title: str, argument: str) -> str:
    """The kind of an argument; KeyError where nobody said it."""
    return OTHERWISE.get(f"{title}.{argument}") or KIND[argument]


def right(title: str) -> dict[str, Any]:
    """The arguments of a right call."""
    given, function = own().get(title, {}), functions()[title]
    found = {}
    for name in parameters(function):
        parameter = inspect.signature(function).parameters.get(name)
        if name in given:
            found[name] = given[name]
        elif name in QUICK:
            found[name] = QUICK[name]
        elif parameter is not None and parameter.default is parameter.empty:
            found[name] = world()[name]
    slow = ("model", "clip", "clips", "module")
    return {
        name: value() if name in slow and not isinstance(value, rvis.Model) else value
        for name, value in found.items()
    }


def attempts() -> Iterator[Attempt]:
    """Every wrong call there is."""
    for title, function in functions().items():
        for argument, optional in parameters(function).items():
            if f"{title}.{argument}" in LEFT:
                continue
            for name, value in WRONG[kind(title, argument)].items():
                if value is not None or not optional:
                    yield Attempt(title, argument, name)


def is_fair(attempt: Attempt) -> bool:
    """Whether it may be taken."""
    return bool({(attempt.argument, attempt.value), tuple(attempt)} & set(FAIR))


class _Lowered(BaseException):
    """Something is about to be compiled."""


_watched = False


def _listen(event: str, duration_secs: float, **_: str | int) -> None:
    if _watched and event == "/jax/core/compile/jaxpr_to_mlir_module_duration":
        raise _Lowered


jax.monitoring.register_event_duration_secs_listener(_listen)


@contextlib.contextmanager
def _nothing_compiled() -> Iterator[None]:
    """Raises where JAX lowers a program, so that a call which ought to be refused costs little."""
    global _watched
    _watched = True
    try:
        yield
    finally:
        _watched = False


def tried(attempt: Attempt) -> Verdict:
    """What a call with one wrong argument comes to."""
    title, argument, value = attempt
    arguments = right(title) | {argument: WRONG[kind(title, argument)][value]}
    fair, words, begun = is_fair(attempt), "", time.monotonic()
    try:
        with contextlib.nullcontext() if fair else _nothing_compiled():
            functions()[title](**arguments)
        verdict = "fair" if fair else "taken"
    except (TypeError, ValueError, OSError) as error:
        words = str(error).splitlines()[0] if str(error) else ""
        named = re.match(r"(?:\[Errno \d+\] )?([a-z_0-9, ]+): ", words)
        verdict = f"from inside ({type(error).__name__})"
        if named:
            own_name = argument in named[1].split(", ")
            verdict = "refused" if own_name else "fair" if fair else "of another name"
    except _Lowered:
        verdict = "compiled"
    except Exception as error:
        verdict, words = f"from inside ({type(error).__name__})", str(error)[:200]
    slow = not fair and time.monotonic() - begun > SECONDS
    return Verdict(*attempt, "slow" if slow else verdict, words)


UNKNOWN = {
    "analysis.representations.ssim": "of pictures of fewer than 11 pixels",
    "attribution.kernel_shap": "standard errors",
    "attribution.lime": "standard errors",
    "analysis.metrics.sanity_check": "how similar maps are of which one is constant",
    "style.texture": "how far it is from a content, which there is none of",
    "concepts.measure": "the purity of what is on in too few images",
    "faithfulness": "how another network sees it, where none is given",
    "invert_layers": "how pictures differ, where there is but one",
    "attacks.robustness": "the radius that fools an image which none does",
}
"""Functions whose results hold numbers that are not finite, and for what."""


def called(title: str) -> Verdict:
    """What a right call comes to."""
    try:
        result = functions()[title](**right(title))
    except Exception as error:
        # What is to be read is not there, which is told.
        told = "refused" if "nowhere" in str(error) else f"right, {type(error).__name__}"
        return Verdict(title, "-", "-", told, str(error)[:200])
    leaves = jax.tree.leaves(getattr(result, "__dict__", result))
    arrays = [np.asarray(leaf) for leaf in leaves if isinstance(leaf, (np.ndarray, jax.Array))]
    finite = title in UNKNOWN or all(
        np.isfinite(a).all() for a in arrays if np.issubdtype(a.dtype, np.inexact)
    )
    return Verdict(title, "-", "-", "right" if finite else "right, not finite", "")


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """A folder of its own, and nothing printed: a wrong path may be written to."""
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = os.getcwd()
        os.chdir(place)
        for split in ("train", "test"):
            os.makedirs(f"pictures/{split}/ant")
            Image.new("RGB", (8, 8)).save(f"pictures/{split}/ant/0.png")
        try:
            with contextlib.redirect_stdout(None):
                yield
        finally:
            os.chdir(before)


GOOD = ("refused", "fair", "right")


def main(arguments: list[str] | None = None) -> int:
    """Runs and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--calls", type=int, default=10**6, help="at most")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--only", nargs="+", help="functions, as they are printed")
    p.add_argument("--out", type=Path, help="a JSON file for the figures")
    a = p.parse_args(arguments)
    out = a.out and a.out.resolve()
    titles = a.only or list(functions())
    chosen = [each for each in attempts() if each.function in titles]
    random.Random(a.seed).shuffle(chosen)
    begun = time.monotonic()
    with elsewhere():
        verdicts = [called(title) for title in titles]
        verdicts += [tried(each) for each in chosen[: a.calls]]
    for v in sorted(verdicts):
        if v.verdict not in GOOD:
            print(f"{v.function}({v.argument}={v.value}): {v.verdict} {v.words}")
    counts = collections.Counter(v.verdict for v in verdicts)
    for verdict, count in counts.most_common():
        print(f"{count:6} {verdict}")
    bad = sum(count for verdict, count in counts.items() if verdict not in GOOD)
    if out:
        figures = {"functions": len(titles), "calls": len(verdicts), "seed": a.seed, "bad": bad}
        figures |= {"verdicts": dict(counts), "seconds": round(time.monotonic() - begun)}
        out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return int(bad > 0)


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
