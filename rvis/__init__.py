"""rvis shows what a vision network has learned, by taking gradients with respect to its input."""

import importlib
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any

# What type checkers and editors read; `_PLACES` says the same to Python.
if TYPE_CHECKING:
    from rvis import (
        attacks,
        attribution,
        charts,
        checkpoints,
        checks,
        clip,
        codes,
        core,
        data,
        deconv,
        dream,
        evolve,
        films,
        groups,
        images,
        iterates,
        likeness,
        manifold,
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
    from rvis.invert import invert, invert_layers
    from rvis.match import interpolate, match
    from rvis.models import convert
    from rvis.models.own import from_linen, from_nnx
    from rvis.models.registry import card, list_models, load
    from rvis.results import Result
    from rvis.taps import record
    from rvis.train import Adversary, Recipe, evaluate, train
    from rvis.types import Model, layer_shapes
    from rvis.visualize import activation_atlas, activation_grid, sweep, visualize

__all__ = [
    "Adversary",
    "Model",
    "Recipe",
    "Result",
    "activation_atlas",
    "activation_grid",
    "attacks",
    "attribution",
    "card",
    "charts",
    "checkpoints",
    "checks",
    "clip",
    "codes",
    "convert",
    "core",
    "data",
    "deconv",
    "deepdream",
    "dream",
    "evaluate",
    "evolve",
    "faithfulness",
    "films",
    "from_linen",
    "from_nnx",
    "groups",
    "images",
    "interpolate",
    "invert",
    "invert_layers",
    "iterates",
    "layer_shapes",
    "likeness",
    "list_models",
    "load",
    "manifold",
    "match",
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

_PLACES = {
    "Adversary": "train:Adversary",
    "Model": "types:Model",
    "Recipe": "train:Recipe",
    "Result": "results:Result",
    "activation_atlas": "visualize:activation_atlas",
    "activation_grid": "visualize:activation_grid",
    "card": "models.registry:card",
    "convert": "models.convert",
    "deepdream": "dream:deepdream",
    "evaluate": "train:evaluate",
    "faithfulness": "faithfulness:faithfulness",
    "from_linen": "models.own:from_linen",
    "from_nnx": "models.own:from_nnx",
    "interpolate": "match:interpolate",
    "invert": "invert:invert",
    "invert_layers": "invert:invert_layers",
    "layer_shapes": "types:layer_shapes",
    "list_models": "models.registry:list_models",
    "load": "models.registry:load",
    "match": "match:match",
    "record": "taps:record",
    "sweep": "visualize:sweep",
    "train": "train:train",
    "visualize": "visualize:visualize",
}
"""The module below rvis and the name there; any other public name is a module's own."""


_FIRST = threading.Lock()
"""Two threads cannot import JAX and Flax at once; a room of rvis they can."""


class _Package(ModuleType):
    """Imports what is public when it is first asked for.

    A function's name stays the function's where a module shares it: Python binds every submodule
    that it imports in its package, and `rvis.match` has to outlive `import rvis.match`.
    """

    def __getattr__(self, name: str) -> Any:
        place, _, attribute = _PLACES.get(name, name).partition(":")
        module = f"{__name__}.{place}"
        unknown = f"module {__name__!r} has no attribute {name!r}"
        if name.startswith("_") or not name.isidentifier():
            raise AttributeError(unknown, name=name, obj=self)
        with _FIRST:
            for other in ("jax", "flax.linen", "optax"):
                importlib.import_module(other)
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise AttributeError(unknown, name=name, obj=self) from None
        if attribute:
            found = getattr(found, attribute)
        vars(self)[name] = found
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _PLACES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *__all__})


sys.modules[__name__].__class__ = _Package
