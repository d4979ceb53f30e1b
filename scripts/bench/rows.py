"""The rows: what each side runs, and the work that neither can do without."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rvis
from rvis import attacks, attribution, objectives
from scripts.bench.machine import Cost, gradient
from scripts.bench.twins import ARCHITECTURES, TIMM, lucent, twin

Call = Callable[[], float]
"""Does the work once and returns a figure that tells whether two sides did the same."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
      group: which rows stand together: a name of the command line.
      name: of the row.
      unit: what is counted, such as "image and step".
      count: how many of them one call does.
      sides: by name, "rvis" first; each makes its call, all imports and conversions included.
      cost: of one call of rvis.
      tolerance: by how much the figures may differ, as a share; None where they are random.
      goal: the share of the first peer's time that is wanted.
    """

    group: str
    name: str
    unit: str
    count: int
    sides: Mapping[str, Callable[[Path | None], Call]]
    cost: Callable[[], Cost] | None = None
    tolerance: float | None = None
    goal: float | None = None


def _torch(image: np.ndarray, *, last: bool = True) -> Any:
    import torch

    tensor = torch.tensor(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))
    return tensor.contiguous(memory_format=torch.channels_last) if last else tensor


@functools.cache
def _noise(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(count, *shape)).astype(np.float32)


def _seeded(name: str) -> rvis.Model:
    return rvis.load(name, weights="random", key=0)


@jax.jit
def _bare(model: rvis.Model, images: jax.Array) -> jax.Array:
    return jax.grad(lambda x: model.apply(model.params, x)[:, 7].sum())(images)


def _bare_row(name: str, images: int) -> Row:
    """The gradient of a logit at the images, with nothing around it."""

    def own(data: Path | None) -> Call:
        model, batch = _seeded(name).unnamed(), jnp.asarray(_noise(images, 224, 224, 3))
        return lambda: float(jnp.linalg.norm(_bare(model, batch)))

    def peer(data: Path | None, *, last: bool) -> Call:
        import torch

        network, x = twin(_seeded(name)), _torch(_noise(images, 224, 224, 3), last=last)
        if last:
            network = network.to(memory_format=torch.channels_last)
        x.requires_grad_()

        def call() -> float:
            (found,) = torch.autograd.grad(network(x)[:, 7].sum(), x)
            return float(found.norm())

        return call

    return Row(
        "bare",
        f"{name}, 224 px, batch {images}",
        "image",
        images,
        {
            "rvis": own,
            "torch, channels last": functools.partial(peer, last=True),
            "torch, default": functools.partial(peer, last=False),
        },
        lambda: gradient(_seeded(name), _seeded(name).layers[-1], images, 224),
        1e-3,
        1.0 if name in TIMM else 1.3,
    )


def _lucent_net() -> Any:
    return twin(_seeded("inceptionv1"), redirected=True).network.requires_grad_(True)


def _render(net: Any, unit: int, size: int, images: int, steps: int) -> float:
    peer = lucent().optvis
    pictures = peer.render.render_vis(
        net,
        peer.objectives.channel("mixed4a", unit),
        lambda: peer.param.image(size, batch=images),
        thresholds=(steps,),
        fixed_image_size=size if size < 224 else None,
        progress=False,
        show_image=False,
    )
    return float(np.std(pictures[-1]))


def _step_row(images: int, steps: int = 4) -> Row:
    """`visualize` with its defaults, from noise to pictures, beside lucent's renderer."""

    def own(data: Path | None) -> Call:
        model = _seeded("inceptionv1")
        goal = objectives.channel("mixed4a", np.full(images, 11))
        # Keys rather than units differ, as facets of lucent's batch do.
        options: dict[str, Any] = {"size": 224, "steps": steps, "progress": False}
        return lambda: float(np.std(rvis.visualize(model, goal, **options).images))

    def peer(data: Path | None) -> Call:
        net = _lucent_net()
        return lambda: _render(net, 11, 224, images, steps)

    return Row(
        "step",
        f"InceptionV1 mixed4a, 224 px, batch {images}",
        "image and step",
        images * steps,
        {"rvis": own, "lucent": peer},
        lambda: gradient(_seeded("inceptionv1"), "mixed4a", images, 224).times(steps),
        goal=1 / 5,
    )


def _sweep_row(units: int = 64, steps: int = 4) -> Row:
    def own(data: Path | None) -> Call:
        model = _seeded("inceptionv1")
        options: dict[str, Any] = {"size": 128, "steps": steps, "progress": False}
        return lambda: float(np.std(rvis.sweep(model, "mixed4a", range(units), **options).images))

    def peer(data: Path | None) -> Call:
        net = _lucent_net()
        return lambda: float(np.mean([_render(net, u, 128, 1, steps) for u in range(units)]))

    return Row(
        "sweep",
        f"InceptionV1 mixed4a, {units} units, 128 px",
        "unit and step",
        units * steps,
        {"rvis": own, "lucent": peer},
        lambda: gradient(_seeded("inceptionv1"), "mixed4a", units, 128).times(steps),
    )


def _dream_row(octaves: int = 3, steps: int = 3) -> Row:
    """DeepDream beside Google's loop of 2015 in torch: octaves, jitter, normalised gradient."""
    size, scale = (384, 512), 1.4

    def own(data: Path | None) -> Call:
        model, photo = _seeded("googlenet"), _noise(1, *size, 3)[0]
        options: dict[str, Any] = {"octaves": octaves, "scale": scale, "steps": steps}
        return lambda: float(
            np.std(rvis.deepdream(model, photo, "inception4c", progress=False, **options).images)
        )

    def peer(data: Path | None) -> Call:
        import torch
        from torch.nn import functional

        net = twin(_seeded("googlenet"))
        seen: dict[str, Any] = {}
        net.network.inception4c.register_forward_hook(lambda m, x, y: seen.update(layer=y))
        photo = _torch(_noise(1, *size, 3))

        def resized(x: Any, side: tuple[int, ...]) -> Any:
            return functional.interpolate(x, side, mode="bilinear", align_corners=False)

        def call() -> float:
            sides = [tuple(int(s / scale**i) for s in size) for i in reversed(range(octaves))]
            rng, detail = np.random.default_rng(0), torch.zeros(1, 3, *sides[0])
            for side in sides:
                base = resized(photo, side)
                x = base + resized(detail, side)
                for _ in range(steps):
                    shift = rng.integers(-32, 33, 2).tolist()
                    x = torch.roll(x, shift, (2, 3)).detach().requires_grad_()
                    net(x)
                    (slope,) = torch.autograd.grad(seen["layer"].square().mean(), x)
                    x = x.detach() + 1.5 / 255 * slope / slope.abs().mean()
                    x = torch.roll(x.clamp(0, 1), [-s for s in shift], (2, 3))
                detail = x - base
            return float(x.std())

        return call

    pixels = sum((1 / scale**i) ** 2 for i in range(octaves)) * size[0] * size[1]
    return Row(
        "dream",
        "GoogLeNet inception4c, 512×384, 3 octaves",
        "step",
        octaves * steps,
        {"rvis": own, "torch loop": peer},
        lambda: gradient(_seeded("googlenet"), "inception4c", 1, 224).times(
            steps * pixels / 224**2
        ),
    )


def _cifar(data: Path | None, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Test images and labels, evenly spread, or noise where there is no data."""
    if data is None:
        return _noise(count, 32, 32, 3), np.zeros(count, np.int32)
    test = rvis.data.load(data, "test")
    some = np.linspace(0, len(test) - 1, count).astype(int)
    return np.asarray(test.floats(some)), np.asarray(test.labels[some]).astype(np.int32)


def _pgd_row(images: int = 64, steps: int = 40, eps: float = 4 / 255) -> Row:
    """Both with every example to the last step, so that equal work is compared."""

    def own(data: Path | None) -> Call:
        x, y = _cifar(data, images)
        model = rvis.load("cifar10_resnet_robust")
        return lambda: float(
            attacks.pgd(model, x, y, eps=eps, steps=steps, progress=False).success.mean()
        )

    def foolbox(data: Path | None) -> Call:
        import foolbox
        import torch

        x, y = _cifar(data, images)
        net = twin(rvis.load("cifar10_resnet_robust"))
        model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
        attack = foolbox.attacks.LinfPGD(rel_stepsize=2.5 / steps, steps=steps)
        tensors = _torch(x), torch.tensor(y).long()
        return lambda: float(attack(model, *tensors, epsilons=eps)[2].float().mean())

    def torchattacks(data: Path | None) -> Call:
        import torch
        import torchattacks

        x, y = _cifar(data, images)
        net = twin(rvis.load("cifar10_resnet_robust"))
        attack = torchattacks.PGD(net, eps=eps, alpha=2.5 * eps / steps, steps=steps)
        tensors = _torch(x), torch.tensor(y).long()

        def call() -> float:
            found = net(attack(*tensors)).argmax(1)
            return float((found != tensors[1]).float().mean())

        return call

    return Row(
        "attacks",
        f"PGD-{steps}, ResNet, 32 px, batch {images}",
        "image and step",
        images * steps,
        {"rvis": own, "foolbox": foolbox, "torchattacks": torchattacks},
        lambda: gradient(rvis.load("cifar10_resnet"), "fc", images, 32).times(steps),
        goal=1.0,
    )


def _apgd_row(images: int = 64, steps: int = 40, eps: float = 4 / 255) -> Row:
    def own(data: Path | None) -> Call:
        x, y = _cifar(data, images)
        model = rvis.load("cifar10_resnet_robust")
        return lambda: float(
            attacks.apgd(model, x, y, eps=eps, steps=steps, progress=False).success.mean()
        )

    def peer(data: Path | None) -> Call:
        import torch
        import torchattacks

        x, y = _cifar(data, images)
        net = twin(rvis.load("cifar10_resnet_robust"))
        attack = torchattacks.APGD(net, eps=eps, steps=steps)
        tensors = _torch(x), torch.tensor(y).long()

        def call() -> float:
            found = net(attack(*tensors)).argmax(1)
            return float((found != tensors[1]).float().mean())

        return call

    return Row(
        "attacks",
        f"APGD-{steps}, ResNet, 32 px, batch {images}",
        "image and step",
        images * steps,
        {"rvis": own, "torchattacks": peer},
        lambda: gradient(rvis.load("cifar10_resnet"), "fc", images, 32).times(steps),
        goal=1.0,
    )


def _attribution_row(method: str, images: int, evaluations: int, goal: float | None) -> Row:
    """The same maps as captum's, at its own defaults where it has any."""
    options: dict[str, dict[str, Any]] = {
        "integrated_gradients": {"baseline": 0.5, "tol": None},
        "grad_cam": {"layer": "layer4"},
        "occlusion": {"window": 8, "stride": 4, "baseline": 0.25},
    }

    def own(data: Path | None) -> Call:
        x, y = _cifar(data, images)
        model, function = rvis.load("cifar10_resnet"), getattr(attribution, method)

        def call() -> float:
            found = function(model, x, y, progress=False, **options[method])
            return float(np.linalg.norm(found.maps if found.raw is None else found.raw))

        return call

    def peer(data: Path | None) -> Call:
        import captum.attr
        import torch

        x, y = _cifar(data, images)
        net, tensor = twin(rvis.load("cifar10_resnet")), _torch(x).requires_grad_()
        target = torch.tensor(y).long()
        calls: dict[str, Callable[[], Any]] = {
            "integrated_gradients": lambda: captum.attr.IntegratedGradients(net).attribute(
                tensor, 0.5, target, n_steps=50, method="gausslegendre"
            ),
            "grad_cam": lambda: captum.attr.LayerGradCam(net, net.network.layer4).attribute(
                tensor, target, relu_attributions=True
            ),
            "occlusion": lambda: captum.attr.Occlusion(net).attribute(
                tensor, (3, 8, 8), (3, 4, 4), 0.25, target
            ),
        }
        return lambda: float(calls[method]().detach().norm())

    backward = method != "occlusion"
    return Row(
        "attribution",
        f"{method}, ResNet, 32 px, {images} images",
        "image",
        images,
        {"rvis": own, "captum": peer},
        lambda: gradient(rvis.load("cifar10_resnet"), "fc", images, 32, backward=backward).times(
            evaluations
        ),
        1e-3 if method != "occlusion" else None,
        goal,
    )


def _shapley_row(batch: int, goal: float, drawn: int = 20, plain: int = 25) -> Row:
    """64 patches to one standard error: our permutations, every other the reverse of the one
    before, and captum's plain ones. `scripts/shapley_check.py` measures how many that takes.
    """

    def own(data: Path | None) -> Call:
        x, y = _cifar(data, 1)
        model = rvis.load("cifar10_resnet")
        options: dict[str, Any] = {
            "players": 4,
            "permutations": drawn,
            "baseline": "mean",
            "progress": False,
        }
        return lambda: float(
            attribution.shapley_sampling(model, x[0], int(y[0]), **options).values.sum()
        )

    def peer(data: Path | None) -> Call:
        import captum.attr
        import torch

        x, y = _cifar(data, 1)
        net, tensor = twin(rvis.load("cifar10_resnet")), _torch(x, last=False)
        mask = torch.arange(64).reshape(1, 1, 8, 8)
        mask = mask.repeat_interleave(4, 2).repeat_interleave(4, 3)
        absent = tensor.mean((2, 3), keepdim=True).expand_as(tensor)

        def call() -> float:
            found = captum.attr.ShapleyValueSampling(net).attribute(
                tensor,
                absent,
                int(y[0]),
                feature_mask=mask,
                n_samples=plain,
                perturbations_per_eval=batch,
            )
            return float(found[0, 0, ::4, ::4].sum())

        return call

    return Row(
        "shapley",
        f"64 patches, ResNet, {drawn} permutations for captum's {plain}, "
        f"perturbations_per_eval={batch}",
        "estimate",
        1,
        {"rvis": own, "captum": peer},
        lambda: gradient(rvis.load("cifar10_resnet"), "fc", 65 * drawn, 32, backward=False),
        1e-3,
        goal,
    )


ROWS: tuple[Row, ...] = tuple(
    itertools.chain(
        (_bare_row(name, 2 if name == "vgg16" else 4) for name in (*ARCHITECTURES, *TIMM)),
        (_step_row(images) for images in (1, 6, 32)),
        (_sweep_row(), _dream_row(), _pgd_row(), _apgd_row()),
        (
            _attribution_row("integrated_gradients", 8, 50, 1.0),
            _attribution_row("grad_cam", 32, 1, None),
            _attribution_row("occlusion", 8, 50, None),
        ),
        (_shapley_row(1, 1 / 5), _shapley_row(32, 1 / 2)),
    )
)
