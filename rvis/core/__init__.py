"""The one ascent step and the one runner that serve every task."""

from rvis.core.ascent import Algorithm, Ascent, AscentInfo, AscentState, Problem, energy
from rvis.core.lbfgs import BoxLBFGS, BoxState
from rvis.core.runner import Outcome, at_once, drive, init, run, segment_length, width_for

__all__ = [
    "Algorithm",
    "Ascent",
    "AscentInfo",
    "AscentState",
    "BoxLBFGS",
    "BoxState",
    "Outcome",
    "Problem",
    "at_once",
    "drive",
    "energy",
    "init",
    "run",
    "segment_length",
    "width_for",
]
