"""Layer-wise relevance propagation: f(x) is shared out backwards, layer by layer, to the pixels."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis import checks, gate, objectives
from rvis.analysis.questions import ask
from rvis.attribution import stream
from rvis.attribution.equations import activations, raw
from rvis.attribution.relevance import Propagation, Worth
from rvis.attribution.result import Attribution
from rvis.attribution.rules import Composite, Numbers, along
from rvis.objectives import Objective
from rvis.types import LOGITS, Array, ArrayLike, Model, layer_shapes

COMPOSITES = {
    "epsilon": Composite(),
    "gamma": Composite("gamma", "gamma"),
    "epsilon_plus": Composite("z_plus"),
    "epsilon_plus_flat": Composite("z_plus", first="flat"),
    "epsilon_alpha2_beta1": Composite("alpha_beta"),
    "epsilon_alpha2_beta1_flat": Composite("alpha_beta", first="flat"),
    "epsilon_gamma_box": Composite("gamma", first="box"),
}
"""Rules by kinds of layers, by Zennit's names; "epsilon" is one rule for all."""


@dataclasses.dataclass(frozen=True, eq=False)
class Relevance(Attribution):
    """An `Attribution` whose maps share f(x) out; `gap` is what did not arrive, f(x) − Σ map.

    Attributes:
      layers: (k,) names of layers, in order.
      sums: (n, k) the relevance of each layer, all its numbers together; of one image (k,). Where
        branches lie side by side, each has its part.
    """

    layers: tuple[str, ...] = ()
    sums: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))


@gate.public
def lrp(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    composite: str | Composite = "epsilon_plus_flat",
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    alpha: float = 2.0,
    through: Objective | None = None,
    chunk: int | None = None,
    progress: bool = True,
) -> Relevance:
    """Layer-wise relevance propagation: each layer shares its relevance out among its inputs.

    The rules stand in for the network's own operations, whatever framework it is from. Convolutions
    and dense layers follow the composite: "epsilon" xᵢwᵢⱼ / (zⱼ ± ε); "gamma" with positive
    contributions 1 + γ times; "alpha_beta" α of positive and α − 1 of negative ones; "z_plus"
    positive ones alone; "flat" all inputs alike; "w_square" by wᵢⱼ²; "box" zᴮ, with pixels from 0
    to 1. BatchNorm (and whatever else scales channels) after a layer is folded into it. All else
    follows `rvis.attribution.relevance`: sums in proportion; attention, softmax, LayerNorm and
    gated activations as AttnLRP has them.

    Relevance is taken at the pixels as the network has normalised them: it passes through
    (x − mean) / std unchanged. Biases keep their part of it, so that `gap` is theirs but for ε.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: f: a class number (its logit), one for each image, or an objective of
        `rvis.objectives` (one, or one for each image), whose activations times gradients are what
        is shared out.
      composite: a name of `COMPOSITES`, or a `Composite` of rules for convolutions, dense layers
        and the first layer.
      epsilon: what keeps the denominators of convolutions and dense layers from zero, and absorbs
        relevance where it is large; those of sums, means and attention have at most 1e-6.
      gamma: how much more positive contributions count by "gamma".
      alpha: of "alpha_beta", at least 1.
      through: the part of the relevance that goes through one channel, neuron or direction of a
        layer (concept relevance): an objective that reads one layer, before the target's.
      chunk: images on the device at once; bounds memory, never changes maps (to the bit on a CPU).
      progress: a bar on a terminal.

    Returns:
      A `Relevance` with maps (n, H, W, C), or (H, W, C) of one image.

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled; or an operation of
        the network for which there is no rule.
      FloatingPointError: naming the images whose map is not finite.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> result = attribution.lrp(model, grey, 3)
      >>> result.maps.shape, result.layers[-1]
      ((28, 28, 1), 'fc2')

    Reference: Bach et al. 2015 (ε, αβ, flat); Montavon et al. 2017 (w², zᴮ, z⁺) and 2019 (γ,
      composites); Achtibat et al. 2024, AttnLRP, section 3; Achtibat et al. 2023 (concept
      relevance); names and composites as in Zennit, Anders et al. 2021.
    """
    question = ask(model, images, target, chunk=chunk)
    numbers = Numbers(
        checks.number("epsilon", epsilon, above=0),
        checks.number("gamma", gamma, low=0),
        checks.number("alpha", alpha, low=1),
    )
    rules, part = composite, None
    if not isinstance(rules, Composite):
        rules = COMPOSITES[checks.choice("composite", rules, COMPOSITES)]
    if through is not None:
        part = _through(through, model, question.shape, question.objective)
    count = len(question.images)
    own = (
        Numbers(*(np.full(count, number, np.float32) for number in numbers)),
        part and part.broadcast(count),
    )
    function = _Propagated(model.layers, rules)
    scores, maps, sums = stream.each(
        function, question, own=own, chunk=chunk, progress=progress, label="lrp"
    )
    plain = stream.answer(
        "lrp",
        question,
        maps,
        scores,
        gap=scores - maps.sum((1, 2, 3)),
        target=target,
        composite=composite if isinstance(composite, str) else dataclasses.asdict(rules),
        **numbers._asdict(),
    )
    reached = layer_shapes(model, question.shape)
    before = [i for i, name in enumerate(model.layers) if name in reached]
    fields = {f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)}
    names = tuple(model.layers[i] for i in before)
    return Relevance(**fields, layers=names, sums=question.shaped(sums[:, before]))


def _through(choice: Any, model: Model, shape: Any, target: Objective) -> Objective:
    if not isinstance(choice, Objective):
        raise TypeError(f"through: an objective of a layer was expected, given {choice!r}")
    part = objectives.target("through", choice, model, shape)
    order = (*model.layers, LOGITS)
    last = max(order.index(layer) for layer in target.layers)
    if len(part.layers) != 1 or order.index(part.layers[0]) >= last:
        raise ValueError(
            f"through: an objective of one layer before the target's was expected, given one of "
            f"{part.layers}"
        )
    return part


@dataclasses.dataclass(frozen=True)
class _Propagated:
    """f(x), the relevance of every value of the image, and the sum of each layer's."""

    layers: tuple[str, ...]
    composite: Composite

    def __call__(self, model: Model, problem: tuple) -> tuple[Array, Array, Array]:
        objective, image, (numbers, part) = problem
        through: dict[str, Any] = {} if part is None else {part.layers[0]: _Part(part)}
        ends = jnp.zeros_like(image)[None], jnp.ones_like(image)[None]
        evaluated = activations(model, objective, image[None])

        def propagated(image: Array, shifts: dict[str, Array]) -> dict[str, Array]:
            walk = Propagation(self.composite, numbers, shifts, through)
            ends_of = evaluated(walk, Worth(image[None], positive=True, box=ends))
            return {name: raw(value) for name, value in ends_of.items()}

        zeros = dict.fromkeys(self.layers, jnp.zeros((), image.dtype))
        reached, back = jax.vjp(propagated, image, zeros)
        score, gradients = jax.value_and_grad(objective.__call__)(reached)
        relevance, sums = back(jax.tree.map(jnp.multiply, reached, gradients))
        return score, relevance, jnp.array([sums[name] for name in self.layers])


class _Part(NamedTuple):
    """What goes on of a layer's relevance through an objective, that is along its gradient."""

    objective: Objective

    def __call__(self, x: Array) -> Array:
        layer = self.objective.layers[0]
        still = lax.stop_gradient(x)
        return along(jax.grad(lambda a: self.objective({layer: a}))(still))(x)
