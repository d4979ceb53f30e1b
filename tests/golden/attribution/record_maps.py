"""Records what Zennit, pytorch-grad-cam and captum say of the two small networks.

Command: python tests/golden/attribution/record_maps.py
It needs torch, zennit, grad-cam and captum, which no test does. It writes `maps.npz` beside it:
images (n, H, W, C) in every array, relevance at the normalised pixels.
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import seeded_networks as golden

torch.set_num_threads(1)


def filled(module, p):
    module.weight.data = torch.tensor(p["kernel"])
    module.bias.data = torch.tensor(p["bias"])
    return module


def conv(p, bn=None, stride=1):
    kernel, bias = p["kernel"].astype(np.float64), p["bias"].astype(np.float64)
    if bn is not None:
        factor = bn["scale"] / np.sqrt(bn["var"] + 1e-5)
        kernel, bias = kernel * factor[:, None, None, None], (bias - bn["mean"]) * factor
        bias = bias + bn["shift"]
    out, channels, side, _ = kernel.shape
    p = {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
    return filled(nn.Conv2d(channels, out, side, stride, side // 2), p)


def plain():
    p = golden.PLAIN
    return nn.Sequential(
        conv(p["conv1"]),
        nn.ReLU(),
        conv(p["conv2"]),
        nn.ReLU(),
        nn.MaxPool2d(2),
        conv(p["conv3"]),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        filled(nn.Linear(192, 16), p["fc1"]),
        nn.ReLU(),
        filled(nn.Linear(16, 5), p["fc2"]),
    )


class Residual(nn.Module):
    def __init__(self):
        from zennit.layer import Sum

        super().__init__()
        p = golden.RESIDUAL
        self.stem, self.relu1 = conv(p["conv1"], p["bn1"]), nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.a1, self.a2 = conv(p["a.conv1"], p["a.bn1"]), conv(p["a.conv2"], p["a.bn2"])
        self.b1, self.b2 = conv(p["b.conv1"], p["b.bn1"], 2), conv(p["b.conv2"], p["b.bn2"])
        self.down = conv(p["b.down"], p["b.downbn"], 2)
        self.sum1, self.sum2 = Sum(), Sum()
        self.relua1, self.relua, self.relub1, self.relub = (nn.ReLU() for _ in range(4))
        self.mean, self.flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = filled(nn.Linear(12, 5), p["fc"])

    def forward(self, x):
        x = self.pool(self.relu1(self.stem(x)))
        y = self.a2(self.relua1(self.a1(x)))
        x = self.relua(self.sum1(torch.stack([y, x], -1)))
        y = self.b2(self.relub1(self.b1(x)))
        x = self.relub(self.sum2(torch.stack([y, self.down(x)], -1)))
        return self.fc(self.flat(self.mean(x)))


def inputs(images):
    x = (images - np.float32(golden.MEAN)) / np.float32(golden.STD)
    return torch.tensor(x.astype(np.float32)).permute(0, 3, 1, 2)


def last(x):
    return x.detach().permute(0, 2, 3, 1).numpy()


def zennit(make):
    from zennit import composites, rules
    from zennit.attribution import Gradient
    from zennit.types import Convolution, Linear

    low, high = inputs(np.zeros((1, 1, 1, 3))), inputs(np.ones((1, 1, 1, 3)))
    base = composites.layer_map_base(1e-6)
    plans = {
        "epsilon": lambda: composites.LayerMapComposite([*base, (Linear, rules.Epsilon(1e-6))]),
        "gamma": lambda: composites.LayerMapComposite([*base, (Linear, rules.Gamma(0.25))]),
        "w_square": lambda: composites.LayerMapComposite(
            [*base, (Convolution, rules.WSquare()), (Linear, rules.Epsilon(1e-6))]
        ),
        "epsilon_plus": composites.EpsilonPlus,
        "epsilon_plus_flat": composites.EpsilonPlusFlat,
        "epsilon_alpha2_beta1": composites.EpsilonAlpha2Beta1,
        "epsilon_alpha2_beta1_flat": composites.EpsilonAlpha2Beta1Flat,
        "epsilon_gamma_box": lambda: composites.EpsilonGammaBox(low=low, high=high),
    }
    x, found = inputs(golden.IMAGES), {}
    for name, plan in plans.items():
        model = make().eval()
        logits = model(x).detach()
        start = torch.zeros_like(logits)
        rows = torch.arange(len(x))
        start[rows, golden.CLASSES] = logits[rows, golden.CLASSES]
        with Gradient(model, plan()) as attributor:
            _, relevance = attributor(x, start)
        found[f"lrp/{name}"] = last(relevance)
    found["logits"] = logits.numpy()
    return found


def cams(model, layer):
    import pytorch_grad_cam as library
    from pytorch_grad_cam.ablation_layer import AblationLayer
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    # Score-CAM's authors enlarge masks so; the library keeps the corners in place.
    nn.UpsamplingBilinear2d = lambda size: nn.Upsample(size, mode="bilinear", align_corners=False)
    x, found = inputs(golden.IMAGES), {}
    targets = [ClassifierOutputTarget(int(c)) for c in golden.CLASSES]
    names = "GradCAM GradCAMPlusPlus XGradCAM HiResCAM LayerCAM EigenCAM ScoreCAM AblationCAM"
    for name in names.split():
        kind = getattr(library, name)
        keeps = {"ablation_layer": AblationLayer()} if name == "AblationCAM" else {}
        cam = kind(model, [layer], **keeps)
        cam(x, targets)  # its own loops, so that activations and gradients are there
        acts, grads = cam.activations_and_grads.activations, cam.activations_and_grads.gradients
        cam.outputs = model(x)
        if name not in ("EigenCAM", "ScoreCAM", "AblationCAM"):
            cam.outputs = cam.activations_and_grads(x)
            sum(t(o) for t, o in zip(targets, cam.outputs, strict=True)).backward()
            acts, grads = cam.activations_and_grads.activations, cam.activations_and_grads.gradients
            grads = grads[0].numpy()
            acts = acts[0].numpy()
            raw = cam.get_cam_image(x, layer, targets, acts, grads, False)
        else:
            acts = cam.activations_and_grads
            cam.outputs = acts(x)
            activations = acts.activations[0].numpy()
            raw = cam.get_cam_image(x, layer, targets, activations, None, False)
        found[f"cam/{name}"] = np.asarray(raw, np.float32)
    return found


def deep_lift():
    """Without maxima after ReLUs, of which captum's maps are not complete."""
    from captum.attr import DeepLift

    x, before = inputs(golden.IMAGES), inputs(golden.BASELINES)
    classes, found = torch.tensor(golden.CLASSES), {}
    for name in ("average", "maxima"):
        model = plain().eval()
        if name == "average":
            model[4] = nn.AvgPool2d(2)
        else:
            model = nn.Sequential(*(nn.Identity() if isinstance(m, nn.ReLU) else m for m in model))
        found[f"deep_lift/{name}"] = last(DeepLift(model).attribute(x, before, target=classes))
    return found


def judges():
    """Quantus's core set, of the plain network and random maps."""
    import quantus

    model, x = None, inputs(golden.IMAGES).numpy()
    maps, masks = golden.JUDGED[:, None], golden.MASKS[:, None]
    quiet = {"disable_warnings": True, "display_progressbar": False}
    plain_maps = {**quiet, "abs": False, "normalise": False}
    own = {"x_batch": x, "y_batch": golden.CLASSES, "a_batch": maps, "device": "cpu"}
    found = {}
    for name in ("PointingGame", "RelevanceMassAccuracy", "RelevanceRankAccuracy"):
        metric = getattr(quantus, name)(**plain_maps)
        found[name] = metric(model=model, s_batch=masks, **own)
    for name in ("Sparseness", "Complexity"):
        found[name] = getattr(quantus, name)(**plain_maps)(model=model, **own)
    # ROAD itself fails on images of several channels; this is what it removes places by.
    order = np.argsort(-golden.JUDGED[0].ravel(), kind="stable")
    fill = quantus.perturb_func.noisy_linear_imputation
    image = golden.IMAGES[0].transpose(2, 0, 1)
    found["filled"] = fill(arr=image, indices=order[:77], noise=0.0).transpose(1, 2, 0)
    return {f"judge/{name}": np.asarray(value, np.float64) for name, value in found.items()}


def main():
    found = {}
    for name, make in {"plain": plain, "residual": Residual}.items():
        parts = zennit(make)
        model = make().eval()
        parts |= cams(model, model[6] if name == "plain" else model.relub)
        found |= {f"{name}/{key}": value for key, value in parts.items()}
    found |= deep_lift() | judges()
    path = pathlib.Path(__file__).with_name("maps.npz")
    np.savez_compressed(path, **{k: np.asarray(v, np.float32) for k, v in found.items()})
    print({k: v.shape for k, v in found.items()})


if __name__ == "__main__":
    main()
