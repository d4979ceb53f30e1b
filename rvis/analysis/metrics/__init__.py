"""How good a map is: whether the score follows it, whether it is stable, whether it needs weights.

Maps are arrays and attributions are callables `attribute(model, images, target)`, whose result is
an array or has one in `maps`: any method can be judged.
"""

from rvis.analysis.faithful import Faithfulness, faithfulness
from rvis.analysis.metrics.curves import Curve, deletion, insertion, pixel_flipping
from rvis.analysis.metrics.intervals import Interval, mean, share
from rvis.analysis.metrics.localisation import (
    complexity,
    pointing_game,
    relevance_mass,
    relevance_rank,
    sparseness,
)
from rvis.analysis.metrics.removal import irof, road
from rvis.analysis.metrics.sanity import (
    SanityCheck,
    efficient_sanity_check,
    modules,
    randomised,
    sanity_check,
)
from rvis.analysis.metrics.subsets import faithfulness_correlation, monotonicity, sensitivity_n
from rvis.analysis.metrics.trust import infidelity, max_sensitivity
from rvis.analysis.similarity import alignment, spearman, structural_similarity

__all__ = [
    "Curve",
    "Faithfulness",
    "Interval",
    "SanityCheck",
    "alignment",
    "complexity",
    "deletion",
    "efficient_sanity_check",
    "faithfulness",
    "faithfulness_correlation",
    "infidelity",
    "insertion",
    "irof",
    "max_sensitivity",
    "mean",
    "modules",
    "monotonicity",
    "pixel_flipping",
    "pointing_game",
    "randomised",
    "relevance_mass",
    "relevance_rank",
    "road",
    "sanity_check",
    "sensitivity_n",
    "share",
    "sparseness",
    "spearman",
    "structural_similarity",
]
