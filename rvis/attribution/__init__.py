"""What a network saw in an image: maps by gradients, class activation, masks and Shapley values.

Every function is `f(model, images, target, *, …)` and gives an `Attribution` (Shapley values a
`ShapleyResult`).
"""

from rvis.attribution.attention import attention_gradient, attention_rollout
from rvis.attribution.cam import (
    eigen_cam,
    grad_cam,
    grad_cam_plus,
    hires_cam,
    layer_cam,
    layer_gradient_x_activation,
    xgrad_cam,
)
from rvis.attribution.channels import ablation_cam, score_cam
from rvis.attribution.deep_lift import deep_lift
from rvis.attribution.full_gradient import full_gradient
from rvis.attribution.gradients import (
    deconvnet,
    gradient,
    guided_backprop,
    input_x_gradient,
    smoothgrad,
    vargrad,
)
from rvis.attribution.integrated import integrated_gradients
from rvis.attribution.masks import occlusion, rise
from rvis.attribution.paths import (
    blur_integrated_gradients,
    expected_gradients,
    guided_integrated_gradients,
)
from rvis.attribution.propagation import Relevance, lrp
from rvis.attribution.regression import kernel_shap, lime, shapley_interactions
from rvis.attribution.result import Attribution
from rvis.attribution.rules import Composite
from rvis.attribution.segments import superpixels, xrai
from rvis.attribution.shapley import (
    ShapleyAttribution,
    ShapleyResult,
    shapley,
    shapley_sampling,
)

__all__ = [
    "Attribution",
    "Composite",
    "Relevance",
    "ShapleyAttribution",
    "ShapleyResult",
    "ablation_cam",
    "attention_gradient",
    "attention_rollout",
    "blur_integrated_gradients",
    "deconvnet",
    "deep_lift",
    "eigen_cam",
    "expected_gradients",
    "full_gradient",
    "grad_cam",
    "grad_cam_plus",
    "gradient",
    "guided_backprop",
    "guided_integrated_gradients",
    "hires_cam",
    "input_x_gradient",
    "integrated_gradients",
    "kernel_shap",
    "layer_cam",
    "layer_gradient_x_activation",
    "lime",
    "lrp",
    "occlusion",
    "rise",
    "score_cam",
    "shapley",
    "shapley_interactions",
    "shapley_sampling",
    "smoothgrad",
    "superpixels",
    "vargrad",
    "xgrad_cam",
    "xrai",
]
