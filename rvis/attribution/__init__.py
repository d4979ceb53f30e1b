"""What a network saw in an image: maps by gradients, class activation, masks and Shapley values.

Every function is `f(model, images, target, *, …)` and gives an `Attribution` (Shapley values a
`ShapleyResult`).
"""

from rvis.attribution.cam import grad_cam, grad_cam_plus, layer_gradient_x_activation
from rvis.attribution.gradients import (
    deconvnet,
    gradient,
    guided_backprop,
    input_x_gradient,
    integrated_gradients,
    smoothgrad,
    vargrad,
)
from rvis.attribution.masks import occlusion, rise
from rvis.attribution.result import Attribution
from rvis.attribution.shapley import (
    ShapleyAttribution,
    ShapleyResult,
    shapley,
    shapley_sampling,
)

__all__ = [
    "Attribution",
    "ShapleyAttribution",
    "ShapleyResult",
    "deconvnet",
    "grad_cam",
    "grad_cam_plus",
    "gradient",
    "guided_backprop",
    "input_x_gradient",
    "integrated_gradients",
    "layer_gradient_x_activation",
    "occlusion",
    "rise",
    "shapley",
    "shapley_sampling",
    "smoothgrad",
    "vargrad",
]
