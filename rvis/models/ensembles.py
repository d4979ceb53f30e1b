"""Several models as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp

from rvis import checks, gate
from rvis.types import (
    LOGITS,
    Apply,
    Array,
    Model,
    PyTree,
    Relu,
    Tap,
    check_classes,
    identity,
    layer_shapes,
)


@dataclasses.dataclass(frozen=True)
class EnsembleApply:
    """The `apply` of `ensemble`: every member sees every image, one after another.

    Attributes:
      applies: of the members.
      combine: see `ensemble`.
    """

    applies: tuple[Apply, ...]
    combine: str

    @property
    def takes_relu(self) -> bool:
        """Whether a rule for the ReLU's gradient can be put in."""
        return all(getattr(apply, "takes_relu", True) for apply in self.applies)

    def __call__(
        self, params: PyTree, images: Array, *, tap: Tap = identity, relu: Relu = jax.nn.relu
    ) -> Array:
        """Logits (n, classes) of images (n, H, W, C) in [0, 1]."""

        def prefixed(i: int, name: str, activation: Array) -> Array:
            return tap(f"{i}.{name}", activation)

        outputs = []
        for i, (apply, weights) in enumerate(zip(self.applies, params, strict=True)):
            own = identity if tap is identity else partial(prefixed, i)
            outputs.append(own(LOGITS, apply(weights, images, tap=own, relu=relu)))
        members = jnp.stack(outputs)
        if self.combine == "logits":
            return members.mean(0)
        mean = jax.nn.logsumexp(jax.nn.log_softmax(members), axis=0)
        return mean - jnp.log(jnp.asarray(len(outputs), mean.dtype))


@gate.public
def ensemble(models: Sequence[Model], *, combine: str = "logits", name: str | None = None) -> Model:
    """Several models of the same classes as one, for attacks, attribution and visualization alike.

    The layers of member i are those of the model with `i.` before their names, and its logits are
    the layer `i.logits`: a sum of objectives, `logit` of each, is asked for by those.

    Args:
      models: two models or more of one `input_shape` and with as many classes each.
      combine: "logits" takes the mean of the logits; "probabilities" the logarithm of the mean of
        the probabilities.
      name: what to call it; the members' names by default.

    Raises:
      TypeError, ValueError: naming `models` or `combine`.

    Example:
      >>> import jax.numpy as jnp, rvis
      >>> both = rvis.ensemble([rvis.load("mnist_cnn"), rvis.load("mnist_cnn")])
      >>> both.layers[:2], both(jnp.zeros((28, 28, 1))).shape
      (('0.conv1', '0.relu1'), (1, 10))

    Reference: Dong et al. 2018, Boosting Adversarial Attacks with Momentum, section 3.2 ("ensemble
      in logits" and "in predictions").
    """
    checks.choice("combine", combine, ("logits", "probabilities"))
    if not isinstance(models, (list, tuple)) or len(models) < 2:
        raise TypeError(f"models: a list of two models or more was expected, given {models!r}")
    members = [check_classes(model) for model in models]
    for what, values in {
        "input_shape": {model.input_shape for model in members},
        "number of classes": {layer_shapes(model)[LOGITS] for model in members},
        "classes": {model.classes for model in members if model.classes},
    }.items():
        if len(values) > 1:
            raise ValueError(f"models: one {what} of all was expected, given {sorted(values)}")
    outer = [f"{i}.{layer}" for i, model in enumerate(members) for layer in (*model.layers, LOGITS)]
    return Model(
        tuple(model.params for model in members),
        EnsembleApply(tuple(model.apply for model in members), combine),
        tuple(outer),
        members[0].input_shape,
        next((model.classes for model in members if model.classes), ()),
        " + ".join(model.name for model in members) if name is None else name,
        members[0].preparation,
    )
