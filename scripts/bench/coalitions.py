"""KernelSHAP and LIME of parts of an image beside captum's, of the same weights."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

import rvis
from rvis import attribution
from scripts.bench.maps import QUIET, Row
from scripts.bench.twins import twin


@dataclasses.dataclass(frozen=True)
class Patches:
    """A CIFAR image on both sides, whose players are parts of a grid."""

    model: rvis.Model
    network: Any
    image: np.ndarray
    label: int
    players: np.ndarray

    @property
    def count(self) -> int:
        return int(self.players.max()) + 1

    def ours(self, method: str, **options: Any) -> np.ndarray:
        """(players,) values."""
        function = getattr(attribution, method)
        shared: dict[str, Any] = {"players": self.players, "baseline": "mean", **QUIET}
        return function(self.model, self.image, self.label, **shared, **options).values

    def theirs(self, method: Any, samples: int, batch: int = 64) -> np.ndarray:
        """(players,) coefficients of one of captum's linear models."""
        import torch

        x = torch.tensor(self.image.transpose(2, 0, 1)[None])
        mean = torch.tensor(self.image.mean((0, 1))).reshape(1, 3, 1, 1).expand_as(x)
        found = method.attribute(
            x,
            baselines=mean,
            target=self.label,
            feature_mask=torch.tensor(self.players)[None, None],
            n_samples=samples,
            perturbations_per_eval=batch,
            return_input_shape=False,
        )
        return np.asarray(found, np.float64).ravel()


def patches(rows: int, columns: int) -> Patches:
    """The shipped CIFAR network, smooth noise, and a grid of players."""
    model = rvis.load("cifar10_resnet")
    coarse = np.random.default_rng(2).random((8, 8, 3), np.float32)
    image = np.kron(coarse, np.ones((4, 4, 1), np.float32))
    y, x = np.indices((32, 32))
    players = (y * rows // 32) * columns + x * columns // 32
    label = int(np.asarray(model(image)).argmax())
    return Patches(model, twin(model), image, label, players.astype(np.int32))


def regressions(draws: int = 16, samples: int = 200) -> Iterator[Row]:
    """KernelSHAP and LIME: the regressions of all coalitions, and captum's drawn ones."""
    import captum.attr
    import torch
    from captum._utils.models.linear_model import SkLearnLinearRegression, SkLearnRidge

    one = patches(3, 3)
    p = one.count
    every = (np.arange(2**p)[:, None] >> np.arange(p)) & 1

    def listed(*_: Any, **__: Any) -> Iterator[Any]:
        for row in every:
            yield torch.tensor(row[None])

    def kernel(_: Any, __: Any, there: Any, **___: Any) -> Any:
        size = int(there.sum())
        if size in (0, p):
            return torch.tensor([1e6])
        return torch.tensor([(p - 1) / (math.comb(p, size) * size * (p - size))])

    def near(_: Any, __: Any, there: Any, **___: Any) -> Any:
        distance = 1 - np.sqrt(float(there.sum()) / p)
        return torch.tensor([np.exp(-(distance**2) / (2 * 0.25**2))])

    shap = captum.attr.Lime(one.network, SkLearnLinearRegression(), kernel, listed)
    yield Row(
        "captum",
        "cifar10_resnet",
        f"kernel_shap, all of 2^{p}",
        functools.partial(one.ours, "kernel_shap"),
        functools.partial(one.theirs, shap, 2**p),
        note="captum's Lime with the Shapley kernel, the empty and the whole coalition 10⁶ times",
    )
    ridge = captum.attr.Lime(one.network, SkLearnRidge(alpha=1.0), near, listed)
    yield Row(
        "captum",
        "cifar10_resnet",
        f"lime, all of 2^{p}",
        functools.partial(one.ours, "lime", samples=2**p),
        functools.partial(one.theirs, ridge, 2**p),
        note="captum's Lime with ridge 1 and the authors' kernel of coalitions (its default is a "
        "lasso, and a kernel of pixels)",
    )

    def drawn() -> np.ndarray:
        method = captum.attr.KernelShap(one.network)
        found = []
        for seed in range(draws):
            torch.manual_seed(seed)
            found.append(one.theirs(method, samples))
        return np.stack(found)

    yield Row(
        "captum",
        "cifar10_resnet",
        f"kernel_shap, {samples} drawn",
        functools.partial(one.ours, "kernel_shap"),
        drawn,
        sampled=True,
        note=f"exact values beside the mean of captum's {draws} estimates",
    )
