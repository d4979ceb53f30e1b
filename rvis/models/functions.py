"""Any function of weights and images as a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from rvis import checks, gate
from rvis.models import interpret
from rvis.models.apply import Floats, normalised
from rvis.models.outputs import Output, adapted
from rvis.models.settings import checked_shape, copied, floats
from rvis.types import Array, Model, PyTree, Relu, Tap, identity


@dataclasses.dataclass(frozen=True)
class FunctionApply:
    """The `apply` of a function of (params, images), which is read equation by equation.

    Where nobody asks for a layer or another gradient, the function is called as it is.

    Attributes:
      function: of the weights and of images (n, H, W, C), normalised.
      mean: subtracted from the images, one number or one a channel.
      std: what they are divided by then.
      layers: kinds of equations that are layers, see `interpret.call`; empty for a function that
        takes a `tap` and calls it.
      takes_relu: whether it has activations that a rule can be put in for.
    """

    function: Callable[..., Any]
    mean: Floats = (0.0,)
    std: Floats = (1.0,)
    layers: tuple[str, ...] = ()
    takes_relu: bool = False

    def __call__(
        self, params: PyTree, images: Array, *, tap: Tap = identity, relu: Relu = jax.nn.relu
    ) -> Array:
        """The function's output for images (n, H, W, C) in [0, 1]."""
        x, function = normalised(images, self.mean, self.std), self.function
        if tap is identity and relu is jax.nn.relu:
            return function(params, x)
        if self.layers:
            return interpret.call(function, (params, x), tap=tap, relu=relu, layers=self.layers)

        def marked(params: PyTree, x: Array) -> Any:
            return self.function(params, x, tap=interpret.mark)

        return interpret.call(marked, (params, x), tap=tap, relu=relu)


@gate.public
def from_function(
    function: Callable[[PyTree, Array], Any],
    params: PyTree,
    input_shape: tuple[int, int, int],
    *,
    primitives: Sequence[str] = (),
    classes: tuple[str, ...] = (),
    mean: Floats = (0.0,),
    std: Floats = (1.0,),
    name: str = "model",
    output: Output = None,
    kind: str | None = None,
    grid: tuple[int, int] | None = None,
) -> Model:
    """A model from any function of weights and images that JAX can trace.

    Its layers are what it names by `jax.ad_checkpoint.checkpoint_name`. Every ReLU in it (a maximum
    with 0, ReLU6 among them) takes the rules of guided backpropagation, of a deconvnet and of the
    rescue of dead units. Of gelu, silu, quick gelu, leaky ReLU and elu a rule sees what comes back
    alone, as of a unit that is open, and the activation's own slope follows: guided backpropagation
    lets positive gradients through them. Functions with a gradient of their own (`jax.custom_jvp`,
    `jax.custom_vjp`) keep it.

    Args:
      function: `function(params, images)`, with images (n, H, W, C) normalised, gives (n, classes);
        two functions that are not equal do not share compiled programs.
      params: a pytree of arrays, of whatever precision.
      input_shape: (H, W, C) it was trained at.
      primitives: whose outputs are layers too, by JAX's names: "conv_general_dilated",
        "dot_general". They are numbered in order: "dot_general", "dot_general:1", ….
      classes: one name a logit.
      mean: subtracted from images in [0, 1]: one number, or one a channel.
      std: what they are divided by then.
      name: what to call it.
      output: which of several outputs: a key, an attribute, an index, or a function of them.
      kind: "logits", "embedding" (n, d) or "maps" (n, h, w, c). By default (n, c) are logits. A
        single logit z becomes the pair (−z/2, z/2), whose softmax has the sigmoid of z.
      grid: (h, w) of a transformer's tokens; by default that of a layer of patches before them, or
        square. Layers of tokens are then seen as (h, w, d), and `NAME.class` is the class token.

    Raises:
      TypeError, ValueError: naming the argument, such as a layer inside a loop, where no tap
        reaches it.

    Example:
      >>> import jax, jax.numpy as jnp, rvis
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> def net(params, images):
      ...     hidden = jax.nn.relu(images.mean((1, 2)) @ params["hidden"])
      ...     return checkpoint_name(hidden, "hidden") @ params["out"]
      >>> params = {"hidden": jnp.eye(3, 4), "out": jnp.ones((4, 2))}
      >>> rvis.from_function(net, params, (8, 8, 3), primitives=["dot_general"]).layers
      ('dot_general', 'hidden', 'dot_general:1')
    """
    shape = checked_shape(input_shape)
    try:
        params = jax.tree.map(copied, params)
    except (TypeError, ValueError) as error:
        raise TypeError(f"params: a pytree of arrays was expected ({error})") from error
    apply = FunctionApply(
        function,
        floats("mean", mean, shape[2]),
        floats("std", std, shape[2]),
        ("name", *primitives),
    )
    model = adapted(
        apply,
        params,
        shape,
        classes=classes,
        name=name,
        output=output,
        kind=kind,
        grid=grid,
        argument="function",
    )
    for primitive in primitives:
        checks.choice("primitives", primitive, {layer.partition(":")[0] for layer in model.layers})
    return model
