"""rvis shows what a vision network has learned, by taking gradients with respect to its input."""

import importlib
import threading
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# What type checkers and editors read; `_PLACES` says the same to Python.
if TYPE_CHECKING:
    from rvis import (
        analysis,
        attacks,
        attribution,
        clip,
        concepts,
        data,
        engine,
        evolve,
        images,
        inversion,
        models,
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
    from rvis.analysis.faithful import faithfulness
    from rvis.engine import keep_programs
    from rvis.inversion import interpolate, invert, invert_layers, match
    from rvis.models.adapters import from_linen, from_nnx
    from rvis.models.ensembles import ensemble
    from rvis.models.frameworks import from_equinox, from_keras
    from rvis.models.functions import from_function
    from rvis.models.registry import card, list_models, load
    from rvis.models.taps import record
    from rvis.results import Result
    from rvis.training import Adversary, Recipe, evaluate, train
    from rvis.types import Model, layer_shapes
    from rvis.visualization import (
        activation_atlas,
        activation_grid,
        deepdream,
        sweep,
        visualize,
    )

_PLACES = {
    "Adversary": "training",
    "Model": "types",
    "Recipe": "training",
    "Result": "results",
    "activation_atlas": "visualization",
    "activation_grid": "visualization",
    "card": "models.registry",
    "deepdream": "visualization",
    "ensemble": "models.ensembles",
    "evaluate": "training",
    "faithfulness": "analysis.faithful",
    "from_equinox": "models.frameworks",
    "from_function": "models.functions",
    "from_keras": "models.frameworks",
    "from_linen": "models.adapters",
    "from_nnx": "models.adapters",
    "interpolate": "inversion",
    "invert": "inversion",
    "invert_layers": "inversion",
    "keep_programs": "engine",
    "layer_shapes": "types",
    "list_models": "models.registry",
    "load": "models.registry",
    "match": "inversion",
    "record": "models.taps",
    "sweep": "visualization",
    "train": "training",
    "visualize": "visualization",
}
"""The module below rvis that has the name."""

_ROOMS = (
    "analysis",
    "attacks",
    "attribution",
    "clip",
    "concepts",
    "data",
    "engine",
    "evolve",
    "images",
    "inversion",
    "models",
    "objectives",
    "optimizers",
    "plotting",
    "post_step",
    "projections",
    "regularizers",
    "style",
    "synthesis",
    "training",
    "transforms",
    "visualization",
)

__all__ = sorted((*_PLACES, *_ROOMS))

_FIRST = threading.Lock()
"""Two threads cannot import JAX and Flax at once; a room of rvis they can."""


def __getattr__(name: str) -> Any:
    """Imports what is public when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _FIRST:
        for other in ("jax", "flax.linen", "optax"):
            importlib.import_module(other)
    module = importlib.import_module(f"{__name__}.{_PLACES.get(name, name)}")
    found = getattr(module, name) if name in _PLACES else module
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
