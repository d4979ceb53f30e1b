"""Attacks: images changed as little as can be, until a network takes them for something else."""

from rvis.attacks.apgd import apgd
from rvis.attacks.carlini_wagner import carlini_wagner
from rvis.attacks.deepfool import deepfool
from rvis.attacks.fool import Fooling, fool
from rvis.attacks.gradient import bim, fgsm, pgd
from rvis.attacks.lbfgs import lbfgs
from rvis.attacks.result import NORMS, AttackResult, distances
from rvis.attacks.square import square
from rvis.attacks.sweep import ATTACKS, RobustnessCurve, robustness, smallest_epsilon
from rvis.attacks.verify import Report, verify

__all__ = [
    "ATTACKS",
    "NORMS",
    "AttackResult",
    "Fooling",
    "Report",
    "RobustnessCurve",
    "apgd",
    "bim",
    "carlini_wagner",
    "deepfool",
    "distances",
    "fgsm",
    "fool",
    "lbfgs",
    "pgd",
    "robustness",
    "smallest_epsilon",
    "square",
    "verify",
]
