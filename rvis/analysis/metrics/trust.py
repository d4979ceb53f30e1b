"""Whether a map says what the score does, and whether it is stable."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, gate, struct
from rvis.analysis.metrics.judge import Attribute, changed, explained, spread
from rvis.analysis.questions import ask
from rvis.types import Array, ArrayLike, KeyLike, Model, as_key, on_device


@gate.public
def infidelity(
    model: Model,
    images: ArrayLike,
    maps: ArrayLike,
    target: Any,
    *,
    noise: float = 0.1,
    samples: int = 1000,
    key: KeyLike = 0,
    chunk: int | None = None,
    progress: bool = True,
) -> np.ndarray:
    """E[(Σ I ⊙ map − (f(x) − f(x − I)))²] over perturbations I of the image; low is good.

    Zero for the gradient of a linear function.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      maps: (n, H, W, C); or (n, H, W), of which every channel takes an equal part.
      target: f: a class number (its logit), one for each image, or an objective.
      noise: I is normal with this standard deviation.
      samples: perturbations; the same serve every image.
      key: an int seed or a typed key.
      chunk: images on the device at once.
      progress: a bar on a terminal.

    Returns:
      (n,), or a number for one image (H, W, C).

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.analysis import metrics
      >>> model = rvis.load("mnist_cnn")
      >>> digit = np.ones((1, 28, 28, 1), np.float32)
      >>> metrics.infidelity(model, digit, 0 * digit, 3, samples=8).shape
      (1,)

    Reference: Yeh et al. 2019, On the (In)fidelity and Sensitivity of Explanations, definition 2.1.
    """
    question = ask(model, images, target, chunk=chunk)
    shares = spread(maps, question.images)
    change = _Noise(as_key(key), on_device(checks.number("noise", noise, above=0), jnp.float32))
    options: dict[str, Any] = {"chunk": chunk, "progress": progress}
    scores, told = changed(change, question, samples, own=shares, **options)
    seen = question.scores()[:, None].astype(np.float64) - scores
    return question.shaped(np.square(told.astype(np.float64) - seen).mean(1))


@struct.dataclass
class _Noise:
    """Normal noise taken away, the same for every image; tells Σ noise ⊙ map."""

    key: Array
    deviation: Array

    def __call__(self, number: Array, image: Array, own: Array) -> tuple[Array, Array]:
        noise = jax.random.normal(jax.random.fold_in(self.key, number), image.shape, jnp.float32)
        away = self.deviation * noise
        return image - away, (away * own).sum()


@gate.public
def max_sensitivity(
    model: Model,
    attribute: Attribute,
    images: ArrayLike,
    target: Any,
    *,
    radius: float = 0.02,
    samples: int = 10,
    key: KeyLike = 0,
) -> np.ndarray:
    """max ‖Φ(x + r) − Φ(x)‖ / ‖Φ(x)‖ over random r in a box of half-side `radius`; low is good.

    Args:
      model: any model.
      attribute: Φ, called as `attribute(model, images, target)`.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1]; so are the changed ones, clipped.
      target: handed on to `attribute`.
      radius: half the side of the box.
      samples: r are drawn, the same for every image.
      key: an int seed or a typed key.

    Returns:
      (n,), or a number for one image (H, W, C); 0 where a map is zero and stays so.

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.analysis import metrics
      >>> model = rvis.load("mnist_cnn")
      >>> digit = np.full((1, 28, 28, 1), 0.5, np.float32)
      >>> constant = lambda model, images, target: np.ones(images.shape)
      >>> metrics.max_sensitivity(model, constant, digit, 3, samples=2).item()
      0.0

    Reference: Yeh et al. 2019, On the (In)fidelity and Sensitivity of Explanations, definition 3.1
      and its Monte-Carlo estimate; divided by ‖Φ(x)‖, as captum's `sensitivity_max` does.
    """
    batch = np.asarray(checks.images("images", images, channels=model.input_shape[2]))
    size = checks.number("radius", radius, low=0)
    plain = explained(attribute, model, batch, target)
    flat = tuple(range(1, plain.ndim))
    worst = np.zeros(len(batch))
    for draw in jax.random.split(as_key(key), samples):
        moved = batch + np.asarray(
            jax.random.uniform(draw, batch.shape[1:], jnp.float32, -size, size)
        )
        found = explained(attribute, model, np.clip(moved, 0, 1), target)
        worst = np.maximum(worst, np.sqrt(np.square(found - plain).sum(flat)))
    norm = np.sqrt(np.square(plain).sum(flat))
    ratio = np.where(worst == 0, 0, worst / np.where(norm == 0, np.finfo(float).tiny, norm))
    return ratio[0] if np.ndim(images) == 3 else ratio
