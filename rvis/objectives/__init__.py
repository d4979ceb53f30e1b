"""What an ascent maximises: functions of activations, as pytrees that add, subtract and scale.

The layer's name is structure; units, vectors, targets and weights are leaves. So
`channel("layer3", jnp.arange(128))` is 128 objectives in one compiled program, which another layer
width or weight reuses. Every objective is maximised; `-objective` is therefore minimised.
"""

from rvis.objectives.base import Activations, Objective, Product, Sum, check
from rvis.objectives.coupled import (
    Alignment,
    Diversity,
    Function,
    Interpolation,
    alignment,
    diversity,
    function,
    gram_cosine,
    interpolate,
)
from rvis.objectives.penalties import Penalty, penalty
from rvis.objectives.schedules import Scheduled, scheduled
from rvis.objectives.targets import target
from rvis.objectives.texture import Gram, gram, gram_matrix
from rvis.objectives.units import Channel, Neuron, Probability, channel, logit, neuron, probability
from rvis.objectives.vectors import (
    Direction,
    Guide,
    Layer,
    Match,
    TensorDirection,
    direction,
    guide,
    layer,
    match,
    tensor_direction,
)

__all__ = [
    "Activations",
    "Alignment",
    "Channel",
    "Direction",
    "Diversity",
    "Function",
    "Gram",
    "Guide",
    "Interpolation",
    "Layer",
    "Match",
    "Neuron",
    "Objective",
    "Penalty",
    "Probability",
    "Product",
    "Scheduled",
    "Sum",
    "TensorDirection",
    "alignment",
    "channel",
    "check",
    "direction",
    "diversity",
    "function",
    "gram",
    "gram_cosine",
    "gram_matrix",
    "guide",
    "interpolate",
    "layer",
    "logit",
    "match",
    "neuron",
    "penalty",
    "probability",
    "scheduled",
    "target",
    "tensor_direction",
]
