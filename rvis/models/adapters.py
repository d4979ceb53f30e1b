"""Your own Flax networks as models."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, gate
from rvis.models.apply import Call, Floats, LinenApply, NnxApply, reason, takes
from rvis.models.outputs import Output, adapted
from rvis.models.settings import checked_shape, copied, fields, floats, tuples
from rvis.types import Array, Model, PyTree

if TYPE_CHECKING:
    from flax import nnx


@gate.public
def from_linen(
    module: nn.Module,
    variables: PyTree,
    *,
    input_shape: tuple[int, int, int],
    classes: tuple[str, ...] = (),
    mean: Floats = (0.0,),
    std: Floats = (1.0,),
    name: str = "model",
    call: Mapping[str, Any] | None = None,
    output: Output = None,
    kind: str | None = None,
    grid: tuple[int, int] | None = None,
) -> Model:
    """A model from anybody's Flax Linen module.

    Its layers are the outputs of every submodule's `__call__`, named by their paths
    ("block_0.Conv_1"; a second call is "block_0.Conv_1:1"), but for those inside `nn.scan`,
    `nn.remat` or `nn.jit`; where the module's own `__call__` takes a keyword `tap`, that names
    them. A keyword `relu` takes the rules of guided backpropagation and its like; without one they
    are put in as by `rvis.from_function`. The keywords `train`, `training`, `is_training`,
    `deterministic` and `inference` are given as in evaluation.

    Args:
      module: maps normalised images (n, H, W, C) to logits (n, classes). Its fields must be
        hashable; a list, as in `nn.Sequential([…])`, is taken as a tuple.
      variables: {"params": …, …} as `module.init` returns them.
      input_shape: (H, W, C) the network was trained at.
      classes: one name a logit.
      mean: subtracted from images in [0, 1]: one number, or one a channel.
      std: what they are divided by then.
      name: what to call it.
      call: further keywords of the module's `__call__`, such as {"is_train": False}.
      output: which of several outputs: a key, an attribute, an index, or a function of them.
      kind: "logits", "embedding" (n, d) or "maps" (n, h, w, c). By default (n, c) are logits. A
        single logit z becomes the pair (−z/2, z/2), whose softmax has the sigmoid of z.
      grid: (h, w) of a transformer's tokens; by default that of a layer of patches before them, or
        square. Layers of tokens are then seen as (h, w, d), and `NAME.class` is the class token.

    Raises:
      TypeError, ValueError: naming the argument, such as a module whose fields do not hash or that
        returns no array of its kind.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp
      >>> from rvis.models import adapters
      >>> net = nn.Sequential([nn.Conv(4, (3, 3)), nn.relu, lambda x: x.mean((1, 2)), nn.Dense(2)])
      >>> variables = net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
      >>> adapters.from_linen(net, variables, input_shape=(8, 8, 3)).layers
      ('layers_0', 'layers_3')
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: a flax.linen.Module was expected, given {type(module).__name__}")
    if not isinstance(variables, Mapping) or "params" not in variables:
        raise TypeError("variables: {'params': …} as module.init returns it was expected")
    shape = checked_shape(input_shape)
    lists = {field: value for field, value in fields(module).items() if isinstance(value, list)}
    if lists:
        module = module.clone(**{field: tuples(value) for field, value in lists.items()})
    statistics = floats("mean", mean, shape[2]), floats("std", std, shape[2])
    apply = LinenApply(module, *statistics, call=keywords(module, call))
    about: dict[str, Any] = {"classes": classes, "name": name, "output": output, "kind": kind}
    about["grid"] = grid
    # Flax raises by itself where a module in training mode would change its state.
    return _from_module(apply, dict(variables), shape, about, compare=False)


@gate.public
def from_nnx(
    module: nnx.Module,
    *,
    input_shape: tuple[int, int, int],
    classes: tuple[str, ...] = (),
    mean: Floats = (0.0,),
    std: Floats = (1.0,),
    name: str = "model",
    call: Mapping[str, Any] | None = None,
    output: Output = None,
    kind: str | None = None,
    grid: tuple[int, int] | None = None,
) -> Model:
    """A model from anybody's Flax NNX module; the module itself is left as it is.

    The weights are those the module holds now, and a copy is used in evaluation mode: by its
    `eval()`, and by attributes `train`, `training`, `is_training`, `deterministic` and `inference`
    that are True or False. A module whose state changes all the same (batch statistics, streams of
    random numbers), or whose batches differ from their examples, is refused. Arguments and other
    refusals are those of `from_linen`.

    Example:
      >>> from flax import nnx
      >>> from rvis.models import adapters
      >>> class Net(nnx.Module):
      ...     def __init__(self):
      ...         self.conv = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))
      ...         self.out = nnx.Linear(4, 2, rngs=nnx.Rngs(1))
      ...     def __call__(self, x):
      ...         return self.out(nnx.relu(self.conv(x)).mean((1, 2)))
      >>> adapters.from_nnx(Net(), input_shape=(8, 8, 3)).layers
      ('conv', 'out')
    """
    from flax import nnx  # slow to import, and seldom needed

    if not isinstance(module, nnx.Module):
        raise TypeError(f"module: a flax.nnx.Module was expected, given {type(module).__name__}")
    shape = checked_shape(input_shape)
    graphdef, state = nnx.split(module)
    statistics = floats("mean", mean, shape[2]), floats("std", std, shape[2])
    apply = NnxApply(graphdef, takes(module, "relu"), *statistics, keywords(module, call))
    about: dict[str, Any] = {"classes": classes, "name": name, "output": output, "kind": kind}
    about["grid"] = grid
    return _from_module(apply, state, shape, about)


def keywords(module: object, call: Mapping[str, Any] | None) -> Call:
    """`call`, checked: what a module's `__call__` takes, with values that hash."""
    if call is None:
        return ()
    if not isinstance(call, Mapping) or not all(isinstance(keyword, str) for keyword in call):
        raise TypeError(f"call: a mapping of keywords was expected, given {call!r}")
    function = getattr(type(module), "call", type(module).__call__)  # Keras has its own `__call__`
    parameters = inspect.signature(function).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for keyword in call:
            checks.choice("call", keyword, list(parameters)[2:])
    pairs = tuple(sorted((keyword, tuples(value)) for keyword, value in call.items()))
    try:
        hash(pairs)
    except TypeError as error:
        raise ValueError(f"call: values that hash were expected ({error})") from error
    return pairs


def _from_module(
    apply: LinenApply | NnxApply,
    params: PyTree,
    input_shape: tuple[int, int, int],
    about: Mapping[str, Any],
    *,
    compare: bool = True,
) -> Model:
    try:
        hash(apply)
    except TypeError as error:
        raise ValueError(
            f"module: its fields must be hashable, without arrays or lists ({reason(error)})"
        ) from error
    params = jax.tree.map(_float32_copy, params)
    return adapted(apply, params, input_shape, compare=compare, **about)


def _float32_copy(leaf: Any) -> Array:
    floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    return copied(leaf, np.float32 if floating else None)
