"""What an ascent maximises: functions of activations, as pytrees that add, subtract and scale.

The layer's name is structure; units, vectors, targets and weights are leaves. So
`channel("layer3", jnp.arange(128))` is 128 objectives in one compiled program, which another layer
width or weight reuses. Every objective is maximised; `-objective` is therefore minimised.
Each function raises TypeError or ValueError, naming the argument, for what is of another kind.
"""

from rvis.objectives.base import Activations, Objective, check
from rvis.objectives.coupled import alignment, diversity, function, gram_cosine, interpolate
from rvis.objectives.targets import target
from rvis.objectives.texture import gram, gram_matrix
from rvis.objectives.units import Neuron as Neuron
from rvis.objectives.units import Probability as Probability
from rvis.objectives.units import channel, logit, neuron, probability
from rvis.objectives.vectors import direction, guide, layer, match, tensor_direction

__all__ = [
    "Activations",
    "Objective",
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
    "probability",
    "target",
    "tensor_direction",
]
