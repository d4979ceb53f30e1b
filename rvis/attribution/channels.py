"""Class activation maps whose channels are weighed by what the network makes of each alone."""

from __future__ import annotations

import dataclasses
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from rvis import gate, struct
from rvis.analysis.questions import Score, Shape, ask, one_baseline
from rvis.attribution import stream
from rvis.attribution.cam import AtLayers, default_layer, merged
from rvis.attribution.result import Attribution
from rvis.files import PathLike
from rvis.types import Array, ArrayLike, Model, Relu, Tap, as_key


@struct.dataclass
class _Masked:
    """f of the image seen through channel `number` of a layer's activations; Score-CAM's mask."""

    channels: int = struct.static()

    def shapes(self, shape: Shape) -> tuple[Shape, Shape]:
        return (self.channels,), (self.channels,)

    def __call__(
        self, key: Array, number: Array, image: Array, own: Any, score: Score
    ) -> tuple[Array, Array]:
        activation, baseline = own
        channel = jnp.take(activation, number, axis=-1)
        wide = jax.image.resize(channel, image.shape[:2], "bilinear", antialias=False)
        low, high = wide.min(), wide.max()
        mask = (wide - low) / jnp.where(high > low, high - low, 1)
        masked = baseline + mask[..., None] * (image - baseline)
        return jnp.broadcast_to(score(masked), (self.channels,)), self.only(number)

    def only(self, number: Array) -> Array:
        return jax.nn.one_hot(number, self.channels, dtype=jnp.float32)


@struct.dataclass
class _Ablated(_Masked):
    """f of the image with channel `number` of a layer set to zero."""

    layer: str = struct.static(default="")

    def __call__(
        self, key: Array, number: Array, image: Array, own: Any, score: Score
    ) -> tuple[Array, Array]:
        without = _Without(score.model.apply, self.layer, self.only(number))
        model = struct.replace(score.model, apply=without)
        value = score._replace(model=model)(image)
        return jnp.broadcast_to(value, (self.channels,)), self.only(number)


@dataclasses.dataclass(frozen=True, eq=False)
class _Without:
    """A model's `apply` without some of a layer's channels, inside a trace."""

    apply: Any
    layer: str
    absent: Array

    def __call__(self, params: Any, images: Array, *, tap: Tap, relu: Relu) -> Array:
        def without(name: str, activation: Array) -> Array:
            kept = 1 - self.absent.astype(activation.dtype)
            return tap(name, activation * kept if name == self.layer else activation)

        return self.apply(params, images, tap=without, relu=relu)


class Options(TypedDict, total=False):
    """How it is made; see `score_cam`."""

    layer: str | None
    signed: bool
    chunk: int | None
    checkpoint: PathLike | None
    progress: bool


@gate.public
def score_cam(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    baseline: str | ArrayLike = 0.0,
    **options: Unpack[Options],
) -> Attribution:
    """relu(Σ_k w_k A_k), w the softmax over channels of the score of the image under each as mask.

    A mask is a channel enlarged to the image and brought to [0, 1].

    Args:
      baseline: what is seen where a mask is 0: a number in [0, 1], "mean" of each image's pixels,
        "blur" (a Gaussian with σ an eighth of the shorter side) or an image (H, W, C).
      checkpoint: a folder for the state of interrupted work; the same call then goes on.

    All else as `grad_cam`, of one layer.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> attribution.score_cam(model, grey, 3).maps.shape
      (28, 28)

    Reference: Wang et al. 2019, Score-CAM, definition 3 and algorithm 1.
    """
    return _by_channel("score_cam", model, images, target, baseline, **options)


@gate.public
def ablation_cam(
    model: Model, images: ArrayLike, target: Any, **options: Unpack[Options]
) -> Attribution:
    """relu(Σ_k w_k A_k), w_k = (f(x) − f_k) / f(x), f_k the score with channel k set to zero.

    Args, returns and raises as `score_cam`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> attribution.ablation_cam(model, grey, 3).maps.shape
      (28, 28)

    Reference: Desai & Ramaswamy 2020, Ablation-CAM, equations 3 and 4.
    """
    return _by_channel("ablation_cam", model, images, target, None, **options)


def _by_channel(
    method: str,
    model: Model,
    images: ArrayLike,
    target: Any,
    baseline: Any,
    *,
    layer: str | None = None,
    signed: bool = False,
    **run: Any,
) -> Attribution:
    question = ask(model, images, target, chunk=run.get("chunk"))
    name = default_layer(question, layer)
    masked = method == "score_cam"
    filled = one_baseline(baseline, question.images) if masked else None
    about = {"baseline": baseline} if masked else {}
    scores, (a,) = stream.each(AtLayers((name,), "activation"), question, chunk=run.get("chunk"))
    channels = a.shape[-1]
    sampler = _Masked(channels) if masked else _Ablated(channels, layer=name)
    own = (a, filled) if masked else ()
    run |= {"samples": channels, "key": as_key(0), "own": own, "label": method}
    by_channel = stream.mean(sampler, question, **run).astype(np.float64)
    if masked:
        high = np.exp(by_channel - by_channel.max(1, keepdims=True))
        weights = high / high.sum(1, keepdims=True)
    else:
        bottom = np.where(scores == 0, 1, scores).astype(np.float64)
        weights = (scores[:, None] - by_channel) / bottom[:, None]
    raw = np.einsum("nhwc,nc->nhw", a, weights).astype(np.float32)
    return merged(method, question, scores, [raw], [name], signed, target=target, **about)
