"""rvis shows what a vision network has learned, by taking gradients with respect to its input."""

from rvis import (
    checkpoints,
    checks,
    core,
    data,
    images,
    objectives,
    optimizers,
    plots,
    projections,
    regularizers,
    taps,
    transforms,
)
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
    "card",
    "checkpoints",
    "checks",
    "convert",
    "core",
    "data",
    "evaluate",
    "from_linen",
    "from_nnx",
    "images",
    "layer_shapes",
    "list_models",
    "load",
    "objectives",
    "optimizers",
    "plots",
    "projections",
    "record",
    "regularizers",
    "sweep",
    "taps",
    "train",
    "transforms",
    "visualize",
]
