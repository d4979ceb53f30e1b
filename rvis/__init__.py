"""rvis shows what a vision network has learned, by taking gradients with respect to its input."""

from rvis import (
    attribution,
    checkpoints,
    checks,
    core,
    data,
    deconv,
    dream,
    films,
    groups,
    images,
    iterates,
    metrics,
    neighbours,
    objectives,
    optimizers,
    plots,
    projections,
    receptive,
    regularizers,
    reports,
    style,
    synthesis,
    taps,
    transforms,
)
from rvis.dream import deepdream
from rvis.faithfulness import faithfulness
from rvis.models import convert
from rvis.models.registry import card, from_linen, from_nnx, list_models, load
from rvis.results import Result
from rvis.taps import record
from rvis.train import Adversary, Recipe, evaluate, train
from rvis.types import Model, layer_shapes
from rvis.visualize import sweep, visualize

__all__ = [
    "Adversary",
    "Model",
    "Recipe",
    "Result",
    "attribution",
    "card",
    "checkpoints",
    "checks",
    "convert",
    "core",
    "data",
    "deconv",
    "deepdream",
    "dream",
    "evaluate",
    "faithfulness",
    "films",
    "from_linen",
    "from_nnx",
    "groups",
    "images",
    "iterates",
    "layer_shapes",
    "list_models",
    "load",
    "metrics",
    "neighbours",
    "objectives",
    "optimizers",
    "plots",
    "projections",
    "receptive",
    "record",
    "regularizers",
    "reports",
    "style",
    "sweep",
    "synthesis",
    "taps",
    "train",
    "transforms",
    "visualize",
]
