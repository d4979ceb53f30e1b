"""What right calls are given: a small network and its like, pictures, data and short runs."""

from __future__ import annotations

import functools
import importlib
import os
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

import rvis
from rvis import attacks, attribution, clip, concepts, data, objectives, synthesis, training
from rvis.models.families.vit import ViT
from rvis.types import Relu, Tap, identity


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
