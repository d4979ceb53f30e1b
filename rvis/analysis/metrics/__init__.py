"""How good a map is: whether the score follows it, whether it is stable, whether it needs weights.

Maps are arrays and attributions are callables `attribute(model, images, target)`, whose result is
an array or has one in `maps`: any method can be judged.
"""

from rvis.analysis.faithful import Faithfulness, faithfulness
from rvis.analysis.metrics.curves import Curve, deletion, insertion, pixel_flipping
from rvis.analysis.metrics.intervals import Interval, mean, share
from rvis.analysis.metrics.sanity import SanityCheck, modules, randomised, sanity_check
from rvis.analysis.metrics.trust import infidelity, max_sensitivity
from rvis.analysis.similarity import alignment, spearman, structural_similarity

__all__ = [
    "Curve",
    "Faithfulness",
    "Interval",
    "SanityCheck",
    "alignment",
    "deletion",
    "faithfulness",
    "infidelity",
    "insertion",
    "max_sensitivity",
    "mean",
    "modules",
    "pixel_flipping",
    "randomised",
    "sanity_check",
    "share",
    "spearman",
    "structural_similarity",
]
