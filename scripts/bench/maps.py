"""Maps beside Zennit's, pytorch-grad-cam's and captum's, of the same weights."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import rvis
from rvis import attribution, objectives
from rvis.style.layers import pooled
from scripts.bench.twins import SHIPPED, twin

Maps = Callable[[], np.ndarray]
QUIET: dict[str, Any] = {"progress": False}
LAYERS = {"resnet18": ("layer4", "layer4"), "vgg16": ("relu5_3", "features.29")}
"""The CAMs' layer: ours, and theirs."""
COMPOSITES = {
    "epsilon_plus": "EpsilonPlus",
    "epsilon_plus_flat": "EpsilonPlusFlat",
    "epsilon_alpha2_beta1": "EpsilonAlpha2Beta1",
    "epsilon_alpha2_beta1_flat": "EpsilonAlpha2Beta1Flat",
    "epsilon_gamma_box": "EpsilonGammaBox",
}
CAMS = {
    "grad_cam": "GradCAM",
    "grad_cam_plus": "GradCAMPlusPlus",
    "xgrad_cam": "XGradCAM",
    "hires_cam": "HiResCAM",
    "layer_cam": "LayerCAM",
    "score_cam": "ScoreCAM",
    "ablation_cam": "AblationCAM",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """Two sides that should agree.

    Attributes:
      peer, network, method: what is compared.
      ours, theirs: what each side gives; with `sampled`, `theirs` has an axis of draws first.
      sampled: the difference is in standard errors of the mean over their draws, the largest.
      note: what was set, or how the definitions differ.
      differ: whether they do, so that no difference is a failure.
    """

    peer: str
    network: str
    method: str
    ours: Maps
    theirs: Maps
    sampled: bool = False
    note: str = ""
    differ: bool = False


@dataclasses.dataclass(frozen=True)
class Case:
    """A network of torchvision on both sides, with images and classes."""

    name: str
    model: rvis.Model
    network: Any
    images: np.ndarray
    classes: np.ndarray

    def normalised(self, images: Any) -> np.ndarray:
        """As the network of torch takes them."""
        apply: Any = self.model.apply
        mean, std = (np.asarray(v, np.float32) for v in (apply.mean, apply.std))
        return ((np.asarray(images, np.float32) - mean) / std).transpose(0, 3, 1, 2)

    @property
    def tensor(self) -> Any:
        import torch

        return torch.tensor(self.normalised(self.images))

    def ours(self, method: str, **options: Any) -> np.ndarray:
        """The maps of a function of `rvis.attribution`."""
        function = getattr(attribution, method)
        target = options.pop("target", self.classes)
        return function(self.model, self.images, target, **QUIET, **options).maps


def case(name: str, size: int, count: int) -> Case:
    """torchvision's network with seeded weights and uniform noise."""
    import torch
    import torchvision

    torch.manual_seed(0)
    network = getattr(torchvision.models, name)().eval()
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    for module in network.modules():
        if isinstance(module, torch.nn.ReLU):
            module.inplace = False
    images = np.random.default_rng(0).random((count, size, size, 3), np.float32)
    classes = np.arange(count, dtype=np.int32)
    return Case(name, rvis.load(name, weights=state), network, images, classes)


def last(tensor: Any) -> np.ndarray:
    """(n, H, W, C) of a tensor (n, C, H, W)."""
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


def gradients(count: int = 4) -> Iterator[Row]:
    """captum's gradient family, Grad-CAM and occlusion, on shipped networks."""
    import captum.attr
    import torch

    for name, layer in SHIPPED.items():
        model = rvis.load(name)
        network = twin(model)
        for module in network.modules():
            if isinstance(module, torch.nn.ReLU):
                module.inplace = False
        images = np.random.default_rng(0).random((count, *model.input_shape), np.float32)
        classes = np.asarray(model(images)).argmax(1).astype(np.int32)
        place, box = network.network.get_submodule(layer), (images.shape[-1], 6, 5)
        methods: dict[str, tuple[dict[str, Any], Any, dict[str, Any]]] = {
            "gradient": ({}, captum.attr.Saliency(network), {"abs": False}),
            "input_x_gradient": ({}, captum.attr.InputXGradient(network), {}),
            "integrated_gradients": (
                {"baseline": 0.5, "tol": None},
                captum.attr.IntegratedGradients(network),
                {"baselines": 0.5, "n_steps": 50, "method": "gausslegendre"},
            ),
            "guided_backprop": ({}, captum.attr.GuidedBackprop(network), {}),
            "deconvnet": ({}, captum.attr.Deconvolution(network), {}),
            "grad_cam": (
                {"layer": layer},
                captum.attr.LayerGradCam(network, place),
                {"relu_attributions": True},
            ),
            "layer_gradient_x_activation": (
                {"layer": layer},
                captum.attr.LayerGradientXActivation(network, place),
                {},
            ),
            "occlusion": (
                {"window": (6, 5), "stride": (4, 3), "baseline": 0.25},
                captum.attr.Occlusion(network),
                {
                    "sliding_window_shapes": box,
                    "strides": (images.shape[-1], 4, 3),
                    "baselines": 0.25,
                    "perturbations_per_eval": 16,
                },
            ),
        }

        def ours(method: str, options: dict[str, Any], asked: tuple[Any, ...]) -> np.ndarray:
            found = getattr(attribution, method)(*asked, **QUIET, **options)
            return found.maps if found.raw is None else found.raw

        def theirs(peer: Any, options: dict[str, Any], x: np.ndarray, c: np.ndarray) -> np.ndarray:
            tensor = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
            found = last(peer.attribute(tensor, target=torch.tensor(c).long(), **options))
            alike = (captum.attr.LayerGradCam, captum.attr.Occlusion)  # in all channels
            return found[..., 0] if isinstance(peer, alike) else found

        for method, (options, peer, more) in methods.items():
            asked = (model, images, classes)
            yield Row(
                "captum",
                name,
                method,
                functools.partial(ours, method, options, asked),
                functools.partial(theirs, peer, more, images, classes),
            )


def zennit(one: Case) -> Iterator[Row]:
    """Composites by name."""
    import torch
    from zennit import composites
    from zennit.attribution import Gradient
    from zennit.torchvision import ResNetCanonizer, VGGCanonizer

    canonizer = ResNetCanonizer if one.name.startswith("resnet") else VGGCanonizer
    shape = (1, 1, 1, 3)
    ends = {
        "low": torch.tensor(one.normalised(np.zeros(shape))),
        "high": torch.tensor(one.normalised(np.ones(shape))),
    }

    def theirs(composite: str) -> np.ndarray:
        box = ends if "box" in composite else {}
        plan = getattr(composites, COMPOSITES[composite])(canonizers=[canonizer()], **box)
        targets = torch.tensor(one.classes).long()
        with Gradient(one.network, plan) as attributor:
            _, found = attributor(
                one.tensor, lambda out: out * torch.nn.functional.one_hot(targets, out.shape[1])
            )
        return last(found)

    for name in COMPOSITES:
        ours = functools.partial(one.ours, "lrp", composite=name)
        yield Row("zennit", one.name, f"lrp {name}", ours, functools.partial(theirs, name))


def scaled(maps: np.ndarray) -> np.ndarray:
    """Each map from 0 to 1, as pytorch-grad-cam gives them."""
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return (maps - low) / (high - low + 1e-7)


def cams(one: Case) -> Iterator[Row]:
    """Each of pytorch-grad-cam's class activation maps that rvis has."""
    import pytorch_grad_cam
    import torch
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

    layer, theirs_layer = LAYERS[one.name]
    own: Any = one.model.apply
    # Grad-CAM++ of a steeper score: their 1e-6 beside its denominators is then nothing.
    steep, mean = 1e4, np.broadcast_to(np.float32(own.mean), one.images.shape[1:])
    options: dict[str, dict[str, Any]] = {
        "score_cam": {"baseline": mean},
        "grad_cam_plus": {"target": steep * objectives.logit(one.classes)},
    }
    notes = {
        "score_cam": "masks enlarged by pixels' centres, as its authors do, for the package's "
        "aligned corners; what is masked is the mean colour, as there",
        "grad_cam_plus": "of 10⁴ times the logit: the package adds 1e-6 to denominators, which are "
        "about as small",
        "ablation_cam": "",
    }

    def target(unit: int, factor: float) -> Any:
        return lambda output: factor * output[unit]

    def theirs(kind: str) -> np.ndarray:
        factor = steep if kind == "GradCAMPlusPlus" else 1
        wanted = [target(int(c), factor) for c in one.classes]
        place = one.network.get_submodule(theirs_layer)
        with by_centres(), getattr(pytorch_grad_cam, kind)(one.network, [place]) as method:
            return method(one.tensor, wanted)

    def ours(method: str, **options: Any) -> np.ndarray:
        return scaled(one.ours(method, layer=layer, **options))

    for name, kind in CAMS.items():
        yield Row(
            "pytorch-grad-cam",
            one.name,
            name,
            functools.partial(ours, name, **options.get(name, {})),
            functools.partial(theirs, kind),
            note=notes.get(name, ""),
        )

    @functools.cache
    def eigen() -> np.ndarray:
        found = attribution.eigen_cam(
            one.model, one.images, one.classes, layer=layer, signed=True, **QUIET
        ).raw
        assert found is not None
        return found

    def projected() -> np.ndarray:
        kept: list[Any] = []
        place = one.network.get_submodule(theirs_layer)
        handle = place.register_forward_hook(lambda m, i, out: kept.append(out))
        with torch.no_grad():
            one.network(one.tensor)
        handle.remove()
        found = get_2d_projection(kept[0].numpy())
        return found * np.sign((found * eigen()).sum((1, 2), keepdims=True))

    yield Row(
        "pytorch-grad-cam",
        one.name,
        "eigen_cam",
        eigen,
        projected,
        note="before the ReLU and up to the sign, which the package leaves to the decomposition",
    )


@contextlib.contextmanager
def by_centres() -> Iterator[None]:
    """Score-CAM's enlarging in torch without aligned corners, and loops without bars."""
    import pytorch_grad_cam.ablation_cam as ablation
    import pytorch_grad_cam.score_cam as score
    import torch
    import tqdm

    kept = torch.nn.UpsamplingBilinear2d
    silent = functools.partial(tqdm.tqdm, disable=True)

    class Bars:
        tqdm = staticmethod(silent)

    torch.nn.UpsamplingBilinear2d = lambda size: torch.nn.Upsample(  # type: ignore[assignment, misc]
        size, mode="bilinear", align_corners=False
    )
    ablation.tqdm = score.tqdm = Bars
    try:
        yield
    finally:
        torch.nn.UpsamplingBilinear2d = kept  # type: ignore[misc]
        ablation.tqdm = score.tqdm = tqdm


def tokens(size: int, count: int) -> Iterator[Row]:
    """CAMs of a vision transformer: timm's, with pytorch-grad-cam's reshape_transform."""
    import pytorch_grad_cam
    import timm
    import torch

    name = "vit_tiny_patch16_224"
    torch.manual_seed(0)
    network = timm.create_model(name, img_size=size, num_classes=10).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # timm starts the class token and biases at 0
            parameter.add_(0.02 * torch.randn(parameter.shape))
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    model = rvis.load(name, weights=state)
    images = np.random.default_rng(1).random((count, size, size, 3), np.float32)
    classes = np.arange(count, dtype=np.int32)
    one = Case(name, model, network, images, classes)
    side = size // 16

    def places(x: Any) -> Any:
        return x[:, 1:].reshape(len(x), side, side, -1).permute(0, 3, 1, 2)

    def theirs(kind: str) -> np.ndarray:
        wanted = [lambda output, c=int(c): output[c] for c in classes]
        place = [network.blocks[-1].norm1]
        with (
            by_centres(),
            getattr(pytorch_grad_cam, kind)(network, place, reshape_transform=places) as method,
        ):
            return method(one.tensor, wanted)

    for method in ("grad_cam", "hires_cam", "layer_cam"):
        yield Row(
            "pytorch-grad-cam",
            f"{name} (timm)",
            method,
            functools.partial(lambda m: scaled(one.ours(m)), method),
            functools.partial(theirs, CAMS[method]),
            note="tokens before the last attention, rvis's default layer; seeded weights",
        )


def captum(one: Case) -> Iterator[Row]:
    """LRP's ε-rule and DeepLIFT, on a chain of layers."""
    import captum.attr
    import torch
    from captum.attr._utils.lrp_rules import EpsilonRule

    targets, epsilon = torch.tensor(one.classes).long(), 1e-3
    layer, place = LAYERS[one.name]

    def cam() -> np.ndarray:
        peer = captum.attr.LayerGradCam(one.network, one.network.get_submodule(place))
        return last(peer.attribute(one.tensor, targets, relu_attributions=True))[..., 0]

    def raw() -> np.ndarray:
        found = attribution.grad_cam(one.model, one.images, one.classes, layer=layer, **QUIET).raw
        assert found is not None
        return found

    yield Row("captum", one.name, "grad_cam", raw, cam)
    if not one.name.startswith("vgg"):  # its LRP and DeepLIFT refuse torchvision's residual blocks
        return

    small = case(one.name, 64, len(one.images))

    def relevance() -> np.ndarray:
        pools = (torch.nn.MaxPool2d, torch.nn.AdaptiveAvgPool2d)
        for module in small.network.modules():
            if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear, *pools)):
                module.rule = EpsilonRule(1e-12 if isinstance(module, pools) else epsilon)
        return last(captum.attr.LRP(small.network).attribute(small.tensor, target=targets))

    yield Row(
        "captum",
        f"{one.name}, {small.images.shape[1]} px",
        "lrp epsilon",
        functools.partial(small.ours, "lrp", composite="epsilon", epsilon=epsilon),
        relevance,
        note="ε 1e-3 of convolutions and dense layers, none of captum's pools. Of noise at 224 px "
        "rounding alone changes maps of sixteen layers by more",
    )

    def lifted(network: Any) -> np.ndarray:
        grey = np.full((1, 1, 1, 3), 0.5, np.float32)
        base = torch.tensor(one.normalised(grey)).expand_as(one.tensor)
        return last(captum.attr.DeepLift(network).attribute(one.tensor, base, target=targets))

    yield Row(
        "captum",
        one.name,
        "deep_lift",
        functools.partial(one.ours, "deep_lift", baseline=0.5),
        functools.partial(lifted, one.network),
        note="where maxima follow ReLUs captum's maps do not sum to f(x) − f(x′); rvis's do",
        differ=True,
    )
    network = case(one.name, one.images.shape[1], len(one.images)).network
    for i, module in enumerate(network.features):
        if isinstance(module, torch.nn.MaxPool2d):
            network.features[i] = torch.nn.AvgPool2d(2)
    average = dataclasses.replace(one, model=pooled(one.model, "average"), network=network)
    yield Row(
        "captum",
        f"{one.name}, means for maxima",
        "deep_lift",
        functools.partial(average.ours, "deep_lift", baseline=0.5),
        functools.partial(lifted, network),
    )
