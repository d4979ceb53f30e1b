"""What a network gives: one array of several, its kind, and whether each image's is its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks
from rvis.models.apply import (
    EXPECTED,
    LinenApply,
    Refusal,
    assemble,
    has_activations,
    reason,
)
from rvis.types import Apply, Array, Model, PyTree, Relu, Tap, flat_shapes, identity, traced

Output = str | int | Callable[[Any], Array] | None
"""A key or attribute, an index, or a function of what a network gives; None for all of it."""


@dataclasses.dataclass(frozen=True)
class Selected:
    """The `apply` of a network of which one output is taken; or whose logit becomes a pair.

    A logit z becomes (−z/2, z/2): the softmax of the two is the sigmoid of z and its complement,
    and either class has a gradient.

    Attributes:
      apply: of the network.
      output: see `Output`.
      pair: whether there is one logit.
    """

    apply: Apply
    output: Output = None
    pair: bool = False

    @property
    def takes_relu(self) -> bool:
        """Whether a rule for the ReLU's gradient can be put in."""
        return getattr(self.apply, "takes_relu", True)

    @property
    def takes_train(self) -> bool:
        """Whether the network can be put in training mode."""
        return getattr(self.apply, "takes_train", False)

    def __call__(
        self, params: PyTree, images: Array, *, tap: Tap = identity, relu: Relu = jax.nn.relu
    ) -> Array:
        """The output of images (n, H, W, C) in [0, 1]."""
        return self._of(self.apply(params, images, tap=tap, relu=relu))

    def train(self, params: PyTree, images: Array) -> tuple[Array, PyTree]:
        """As of the network, in training mode."""
        out, changed = self.apply.train(params, images)  # type: ignore[attr-defined]
        return self._of(out), changed

    def _of(self, out: Any) -> Array:
        if self.output is not None:
            out = _selected(out, self.output)
        if self.pair:
            half = out.reshape(out.shape[0], 1) / 2
            out = jnp.concatenate([-half, half], 1)
        return out


def _selected(out: Any, output: str | int | Callable[[Any], Array]) -> Any:
    if callable(output):
        return output(out)
    if isinstance(output, int):
        if isinstance(out, (tuple, list)) and -len(out) <= output < len(out):
            return out[output]
    elif isinstance(out, Mapping):
        if output in out:
            return out[output]
    elif hasattr(out, output):
        return getattr(out, output)
    raise Refusal(f"output: one of the network's was expected, given {output!r} of {_about(out)}")


def _about(out: Any) -> str:
    if isinstance(out, Mapping):
        return "{" + ", ".join(f"{key!r}: {_about(value)}" for key, value in out.items()) + "}"
    if isinstance(out, (tuple, list)):
        return "(" + ", ".join(map(_about, out)) + ")"
    if hasattr(out, "shape"):
        return f"array {tuple(out.shape)}"
    names = (
        [field.name for field in dataclasses.fields(out)] if dataclasses.is_dataclass(out) else ""
    )
    return f"{type(out).__name__} {names}".strip()


def adapted(
    apply: Any,
    params: PyTree,
    input_shape: tuple[int, int, int],
    *,
    classes: tuple[str, ...],
    name: str,
    output: Output,
    kind: str | None,
    grid: tuple[int, int] | None = None,
    argument: str = "module",
    compare: bool = True,
) -> Model:
    """A model of somebody's network; what all of `rvis.from_…` do in the end.

    Args:
      apply: of the network, a dataclass with a field for whether it has activations.
      params: its weights.
      input_shape: (H, W, C), checked.
      classes: one name a logit.
      name: what to call it.
      output: see `Output`.
      kind: of what is chosen; by default "logits" of (n, classes), "maps" of (n, h, w, c).
      grid: of a transformer's tokens, see `rvis.models.tokens.gridded`.
      argument: the caller's name for the network.
      compare: whether a batch is compared with its examples.
    """
    if kind is not None:
        checks.choice("kind", kind, EXPECTED)
    if grid is not None:
        checks.size("grid", grid)
    if isinstance(output, bool) or not (
        output is None or isinstance(output, (str, int)) or callable(output)
    ):
        raise TypeError(f"output: a key, an index or a function was expected, given {output!r}")
    about = *flat_shapes(params), input_shape
    selected: Any = apply if output is None else Selected(apply, output)
    try:
        shape = traced(selected, *about)[1]
    except Refusal:
        raise
    except Exception:  # which `assemble` meets again, and tells of
        return assemble(selected, params, input_shape, (), name, argument=argument)
    if not shape:
        given = jax.eval_shape(apply, params, jax.ShapeDtypeStruct((1, *input_shape), np.float32))
        raise Refusal(
            f"{argument}: one array was expected of it, given {_about(given)}; choose one by "
            "output=, a key or an index"
        )
    if not apply.takes_relu:
        field = "activations" if isinstance(apply, LinenApply) else "takes_relu"
        apply = dataclasses.replace(apply, **{field: has_activations(apply, *about)})
    pair = kind in (None, "logits") and (len(shape) == 1 or shape[1:] == (1,))
    if output is not None or pair:
        apply = Selected(apply, output, pair)
    names = tuple(map(str, classes))
    about_output: dict[str, Any] = {"kind": kind, "grid": grid, "argument": argument}
    model = assemble(apply, params, input_shape, names, name, **about_output)
    if compare:
        _compare(model, argument)
    return model


def _compare(model: Model, argument: str) -> None:
    """Refuses a network in which an image's output depends on the others, or on chance."""
    rng = np.random.default_rng(0)
    one = rng.random(model.input_shape, np.float32)
    other = one[::-1] ** 3
    try:
        beside, twice = (
            np.asarray(model(np.stack(batch)), np.float32) for batch in ((one, other), (one, one))
        )
    except Exception as error:
        raise ValueError(f"{argument}: it cannot take two images ({reason(error)})") from error
    precise = jnp.finfo(jax.eval_shape(model.apply, model.params, one[None]).dtype).bits > 16
    bound = (1e-3 if precise else 0.1) * max(np.abs(twice).max(), 1e-6)
    # NaN compares with nothing: a network that gives it is as it is.
    if (np.abs(twice[0] - twice[1]) > bound).any() or (np.abs(beside[0] - twice[0]) > bound).any():
        raise ValueError(
            f"{argument}: what it makes of an image depends on the other images of the batch, or "
            "on chance: it runs in training mode (batch statistics, dropout); give its keyword for "
            "evaluation by call={…}, or set the attribute that it goes by"
        )
    if model.kind == "logits" and twice.shape[1] > 1:
        both = np.concatenate([beside, twice])
        if (both >= 0).all() and (np.abs(both.sum(1) - 1) < 1e-3).all():
            raise ValueError(
                f"{argument}: logits were expected of it, given probabilities; leave out its "
                "softmax, or give output=jax.numpy.log"
            )
