"""Judges of maps beside Quantus's and captum's, on a network and maps that both sides share."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
from scipy.ndimage import gaussian_filter

import rvis
from rvis import attribution
from rvis.analysis import metrics
from scripts.bench.maps import QUIET, Row
from scripts.bench.twins import twin

EDGE = 4
"""Black places at each border, as digits have them; maps are next to 0 there."""
NETWORK = "mnist_cnn"  # of one channel: Quantus counts each channel of a place by itself


class Judged:
    """Images and maps, and the network on both sides."""

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(3)
        self.model = rvis.load(NETWORK)
        self.network = twin(self.model)
        noise = gaussian_filter(rng.random((count, 28, 28)), (0, 1.5, 1.5))
        low, high = noise.min((1, 2), keepdims=True), noise.max((1, 2), keepdims=True)
        inside = np.zeros((28, 28), bool)
        inside[EDGE:-EDGE, EDGE:-EDGE] = True
        spread = 0.1 + 0.8 * (noise - low) / (high - low)
        self.images = (inside * spread)[..., None].astype(np.float32)
        self.classes = np.asarray(self.model(self.images)).argmax(1).astype(np.int32)
        found = attribution.input_x_gradient(self.model, self.images, self.classes, **QUIET)
        # No two places are equal: how such are ordered is each library's own.
        noise = rng.normal(size=noise.shape)
        self.maps = found.heatmaps() + np.where(inside, 1e-3, 1e-6) * noise
        self.maps = self.maps.astype(np.float32)
        self.masks = np.zeros(noise.shape, int)
        self.masks[:, 8:18, 6:20] = 1

    @property
    def asked(self) -> tuple[Any, ...]:
        return self.model, self.images, self.maps, self.classes

    def theirs(self, metric: Any, maps: bool = True, **more: Any) -> Any:
        """What a judge of Quantus finds."""
        arguments: dict[str, Any] = {
            "model": self.network,
            "x_batch": self.images.transpose(0, 3, 1, 2),
            "y_batch": self.classes.astype(int),
            "a_batch": self.maps[:, None] if maps else None,
            "device": "cpu",
            "channel_first": True,
            **more,
        }
        return metric(**arguments)


def quantus(count: int = 24, draws: int = 8) -> Iterator[Row]:
    """Each of Quantus's judges that rvis has."""
    import quantus as peer

    one = Judged(count)
    plain: dict[str, Any] = {"abs": False, "normalise": False, "disable_warnings": True}
    plain |= {"return_aggregate": False}
    row = functools.partial(Row, "quantus", NETWORK)

    for ours, kind in (
        ("pointing_game", "PointingGame"),
        ("relevance_mass", "RelevanceMassAccuracy"),
        ("relevance_rank", "RelevanceRankAccuracy"),
        ("sparseness", "Sparseness"),
        ("complexity", "Complexity"),
    ):
        masks = () if ours in ("sparseness", "complexity") else (one.masks,)
        more = {"s_batch": one.masks[:, None]} if masks else {}
        how = {**plain, "abs": not masks}
        yield row(
            ours,
            functools.partial(
                lambda f, m: np.asarray(f(one.maps, *m), float), getattr(metrics, ours), masks
            ),
            functools.partial(
                lambda k, h, m: np.asarray(one.theirs(getattr(peer, k)(**h), **m), float),
                kind,
                how,
                more,
            ),
        )

    curve = peer.PixelFlipping(features_in_step=28, perturb_baseline=0.0, **plain)
    yield row(
        "deletion",
        lambda: metrics.deletion(*one.asked, **QUIET).scores[:, 1:],
        lambda: np.asarray(one.theirs(curve, softmax=True)),
        note="Quantus's PixelFlipping, the whole curve of probabilities; it leaves the image out",
    )
    shares = (1, 3, 10, 30, 70)
    road = peer.ROAD(percentages=list(shares), noise=0.0, **plain)
    yield row(
        "road",
        lambda: (
            metrics.road(
                *one.asked,
                shares=[(int(784 * s / 100) + 0.4) / 784 for s in shares],
                noise=0,
                **QUIET,
            )
            .scores[:, 1:]
            .mean(0)
        ),
        lambda: np.asarray(list(one.theirs(road).values())),
        note="without its noise; shares of first choices that are kept. Of images with several "
        "channels Quantus fails",
    )

    def segments() -> np.ndarray:
        found = [
            peer.helpers.utils.get_superpixel_segments(image.astype("double"), "slic")
            for image in one.images
        ]
        return np.stack(found)

    def hidden() -> np.ndarray:
        where = segments()
        scores = metrics.irof(*one.asked, segments=where, baseline=0.0, **QUIET).scores
        counts = np.asarray([len(np.unique(own)) for own in where])
        return np.asarray(
            [k - np.trapezoid(s[1 : k + 1]) for s, k in zip(scores, counts, strict=True)]
        )

    irof = peer.IROF(perturb_baseline=0.0, **plain)

    def areas() -> np.ndarray:
        with mock.patch.object(np, "trapz", np.trapezoid, create=True):  # gone from NumPy
            return np.asarray(one.theirs(irof, softmax=True))

    yield row(
        "irof",
        hidden,
        areas,
        note="hidden by 0: Quantus's mean is that of all images of the batch together, as they are "
        "by then. Its area counts segments and begins after the first; rvis's is a share, from the "
        "whole image on",
    )
    step = 196
    arya = peer.Monotonicity(features_in_step=step, perturb_baseline=0.0, **{**plain, "abs": True})
    yield row(
        "monotonicity",
        lambda: np.asarray(metrics.monotonicity(*one.asked, pixels=step, **QUIET) == 1, float),
        lambda: np.asarray(one.theirs(arya, softmax=False), float),
        differ=True,
        note="whether rvis's share is 1. Quantus 0.6.0 puts the baseline into an image that is the "
        "baseline, so that nothing is ever shown and its answer is always yes",
    )
    yield from _correlations(one, peer, plain, row, draws)
    yield from _randomised(one, peer, plain, row)
    yield from _stable(one, peer, plain, row, draws)


def _correlations(
    one: Judged, peer: Any, plain: dict[str, Any], row: Callable[..., Row], draws: int
) -> Iterator[Row]:
    size, samples = 150, 200

    def ours() -> np.ndarray:
        return np.stack(
            [
                metrics.faithfulness_correlation(
                    *one.asked, size=size, samples=samples, key=seed, **QUIET
                )
                for seed in range(draws)
            ]
        )

    def theirs() -> np.ndarray:
        metric = peer.FaithfulnessCorrelation(
            nr_runs=samples, subset_size=size, perturb_baseline=0.0, **plain
        )
        found = []
        for seed in range(draws):
            np.random.seed(seed)  # noqa: NPY002, as Quantus draws from it
            found.append(one.theirs(metric, softmax=False))
        return np.asarray(found)

    yield row(
        "faithfulness_correlation",
        ours,
        theirs,
        sampled=True,
        note=f"{draws} draws of {samples} sets of {size} places; of `sensitivity_n` it is the case "
        "of one size",
    )
    # Quantus's definition from rvis's deletion: what is behind the correlation is the same.
    step = 28

    def removed() -> np.ndarray:
        scores = metrics.deletion(*one.asked, pixels=step, **QUIET).scores
        order = -np.sort(-one.maps.reshape(len(one.maps), -1), 1)
        sums = order.reshape(len(order), -1, step).sum(2)
        falls = scores[:, :1] - scores[:, 1:]
        most = int(0.8 * 784 // step)
        return np.asarray([np.corrcoef(falls[:, k], sums[:, k])[0, 1] for k in range(most)])

    metric = peer.SensitivityN(features_in_step=step, perturb_baseline=0.0, **plain)
    yield row(
        "sensitivity_n",
        removed,
        lambda: np.asarray(one.theirs(metric, softmax=True)),
        note="Ancona et al., and rvis, correlate over random sets of n places "
        "of one image. Quantus removes the highest places step by step and correlates over images "
        "the whole fall with the sum of the last step's places; here that is made of `deletion`",
        differ=True,
    )


@contextlib.contextmanager
def noise_of_rvis(one: Judged, peer: Any, names: tuple[str, ...]) -> Iterator[None]:
    """Quantus's networks of noise are rvis's, module by module."""
    import torch

    def generator(self: Any, order: str = "", seed: int = 0) -> Iterator[tuple[str, Any]]:
        del self, seed
        # Its efficient test asks from below and takes the last, of which all is noise.
        for depth in range(1, len(names) + 1):
            noisy = metrics.randomised(one.model, names[:depth])
            network = twin(noisy)
            assert isinstance(network, torch.nn.Module)
            yield names[depth - 1], network

    kind = peer.helpers.model.pytorch_model.PyTorchModel
    length = property(lambda self: len(names))
    with (
        mock.patch.object(kind, "get_random_layer_generator", generator),
        mock.patch.object(kind, "random_layer_generator_length", length),
    ):
        yield


def explain(model: Any, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
    """The gradient of each image's logit, (n, 1, H, W)."""
    import torch

    x = torch.tensor(np.asarray(inputs, np.float32), requires_grad=True)
    scores = model(x)[torch.arange(len(x)), torch.tensor(np.asarray(targets))]
    (found,) = torch.autograd.grad(scores.sum(), x)
    return found.numpy()


def _randomised(
    one: Judged, peer: Any, plain: dict[str, Any], row: Callable[..., Row]
) -> Iterator[Row]:
    names = metrics.modules(one.model)[::-1]
    gradient = functools.partial(attribution.gradient, **QUIET)

    def theirs() -> np.ndarray:
        metric = peer.MPRT(**plain)
        with noise_of_rvis(one, peer, names):
            found = one.theirs(metric, maps=False, explain_func=explain)
        return np.asarray([found[name] for name in names])

    yield row(
        "sanity_check",
        lambda: metrics.sanity_check(one.model, gradient, one.images, one.classes).signed,
        theirs,
        note="Quantus's MPRT of the gradient, with rvis's noise in its networks (its own is "
        "PyTorch's initialisation); rank correlations after every module",
    )

    def entropies() -> np.ndarray:
        metric = peer.EfficientMPRT(complexity_func_kwargs={"n_bins": 100}, **plain)
        with noise_of_rvis(one, peer, names):
            return np.asarray(one.theirs(metric, maps=False, explain_func=explain))

    yield row(
        "efficient_sanity_check",
        lambda: metrics.efficient_sanity_check(one.model, gradient, one.images, one.classes),
        entropies,
        note="100 bins on both sides; Quantus looks for a number by default",
    )


def _stable(
    one: Judged, peer: Any, plain: dict[str, Any], row: Callable[..., Row], draws: int
) -> Iterator[Row]:
    import captum.metrics
    import torch

    radius, samples = 0.02, 10
    gradient = functools.partial(attribution.gradient, **QUIET)
    inside = 0.1 + 0.8 * one.images  # rvis's images stay in [0, 1], where Quantus's may leave it

    def ours() -> np.ndarray:
        return np.stack(
            [
                metrics.max_sensitivity(
                    one.model,
                    gradient,
                    inside,
                    one.classes,
                    radius=radius,
                    samples=samples,
                    key=seed,
                )
                for seed in range(draws)
            ]
        )

    def theirs() -> np.ndarray:
        metric = peer.MaxSensitivity(nr_samples=samples, lower_bound=radius, **plain)
        found = []
        for seed in range(draws):
            np.random.seed(seed)  # noqa: NPY002, as Quantus draws from it
            batch = inside.transpose(0, 3, 1, 2)
            found.append(one.theirs(metric, maps=False, explain_func=explain, x_batch=batch))
        return np.asarray(found)

    yield row(
        "max_sensitivity",
        ours,
        theirs,
        sampled=True,
        note=f"the gradient, {draws} times {samples} draws, of images in [.1, .9]: near the ends "
        "of the range rvis clips what it draws and Quantus does not",
    )

    def moved(inputs: Any) -> Any:
        noise = 0.1 * torch.randn_like(inputs)
        return noise, inputs - noise

    def infidelity() -> np.ndarray:
        x = torch.tensor(one.images.transpose(0, 3, 1, 2))
        maps = torch.tensor(one.maps)[:, None]
        target = torch.tensor(one.classes).long()
        found = []
        for seed in range(draws):
            torch.manual_seed(seed)
            found.append(
                captum.metrics.infidelity(
                    one.network, moved, x, maps, target=target, n_perturb_samples=100
                )
            )
        return torch.stack(found).numpy()

    yield Row(
        "captum",
        NETWORK,
        "infidelity",
        lambda: np.stack(
            [
                metrics.infidelity(*one.asked, noise=0.1, samples=100, key=seed, **QUIET)
                for seed in range(draws)
            ]
        ),
        infidelity,
        sampled=True,
        note=f"normal noise of .1, {draws} times 100 draws. Quantus's is another one: it blackens "
        "squares of a grid, one after another, without noise",
    )
