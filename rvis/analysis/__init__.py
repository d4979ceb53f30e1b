"""What a network does on data: scans, deconvnets, receptive fields, metrics, geometry."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rvis.analysis import (
        deconv,
        manifold,
        metrics,
        neighbours,
        patches,
        receptive,
        representations,
        similarity,
    )

__all__ = [
    "deconv",
    "manifold",
    "metrics",
    "neighbours",
    "patches",
    "receptive",
    "representations",
    "similarity",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
