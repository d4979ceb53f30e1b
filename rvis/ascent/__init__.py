"""The gradient step that serves every task, and descent by L-BFGS in the same form."""

from rvis.ascent.lbfgs import BoxLBFGS, BoxState
from rvis.ascent.step import Ascent, AscentInfo, AscentState, Problem, energy, watcher

__all__ = [
    "Ascent",
    "AscentInfo",
    "AscentState",
    "BoxLBFGS",
    "BoxState",
    "Problem",
    "energy",
    "watcher",
]
