"""Attacks: images changed as little as can be, until a network takes them for something else."""

from rvis.attacks.apgd import apgd
from rvis.attacks.autoattack import AutoAttackResult, autoattack
from rvis.attacks.carlini_wagner import carlini_wagner
from rvis.attacks.certify import Certificates, certify
from rvis.attacks.deepfool import deepfool
from rvis.attacks.fab import fab
from rvis.attacks.fool import Fooling, fool
from rvis.attacks.gradient import bim, fgsm, mi_fgsm, pgd
from rvis.attacks.hop_skip_jump import hop_skip_jump
from rvis.attacks.lbfgs import lbfgs
from rvis.attacks.minimum_norm import ddn, fmn
from rvis.attacks.result import NORMS, AttackResult, distances
from rvis.attacks.square import square
from rvis.attacks.sweep import ATTACKS, RobustnessCurve, robustness, smallest_epsilon
from rvis.attacks.universal import UniversalResult, patch, universal
from rvis.attacks.verify import Report, verify

__all__ = [
    "ATTACKS",
    "NORMS",
    "AttackResult",
    "AutoAttackResult",
    "Certificates",
    "Fooling",
    "Report",
    "RobustnessCurve",
    "UniversalResult",
    "apgd",
    "autoattack",
    "bim",
    "carlini_wagner",
    "certify",
    "ddn",
    "deepfool",
    "distances",
    "fab",
    "fgsm",
    "fmn",
    "fool",
    "hop_skip_jump",
    "lbfgs",
    "mi_fgsm",
    "patch",
    "pgd",
    "robustness",
    "smallest_epsilon",
    "square",
    "universal",
    "verify",
]
