"""A deeper residual network that begins as the same function as a trained one."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rvis import checks, struct
from rvis.models import architectures, registry
from rvis.types import KeyLike, Model

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where run as a file


def deepen(model: Model, stages: Sequence[int], *, key: KeyLike = 0) -> Model:
    """The network with more blocks at the end of its stages, which change nothing at first.

    A new block's last BatchNorm has the scale 0, so that its branch adds nothing, and what comes in
    has passed a ReLU: logits and the activations of the old layers stay what they were, while all
    new kernels can learn once that scale has moved.

    Args:
      model: a `cifar_resnet` or another of the residual networks.
      stages: blocks in each stage, no fewer than the model has.
      key: an int seed or a typed key, for the new kernels.

    Returns:
      A model of the same name, input and classes.

    Raises:
      ValueError: naming `model`, if it is not residual, or `stages`, if they do not fit.

    Reference: Chen et al. 2016, Net2Net, sect. 2.3 (deeper networks); Goyal et al. 2017, Accurate,
      large minibatch SGD, sect. 5.1 (the scale of 0).

    Example:
      >>> import jax.numpy as jnp, rvis
      >>> from scripts.deepen import deepen
      >>> model = rvis.load("cifar10_resnet")
      >>> deeper = deepen(model, (1, 2, 1, 2))
      >>> x = jnp.full((32, 32, 3), 0.25)
      >>> bool(jnp.allclose(model(x), deeper(x), atol=1e-4))
      True
    """
    about = registry.describe(model)
    config = dict(about["config"])
    if not {"stages", "bottleneck"} <= config.keys():
        raise ValueError(f"model: a residual network was expected, given {model.name}")
    before = tuple(config["stages"])
    if not isinstance(stages, Sequence):
        raise TypeError(f"stages: a list of counts was expected, given {stages!r}")
    stages = tuple(checks.count("stages", blocks) for blocks in stages)
    if len(stages) != len(before) or any(a < b for a, b in zip(stages, before, strict=True)):
        raise ValueError(
            f"stages: {len(before)} counts no smaller than {before} were expected, given {stages}"
        )
    deeper = architectures.build(
        about["architecture"],
        weights="random",
        config={**config, "stages": stages},
        key=key,
        input_shape=model.input_shape,
        mean=about["mean"],
        std=about["std"],
        classes=model.classes,
        name=model.name,
    )
    last = "bn3" if config["bottleneck"] else "bn2"
    added = {
        f"layer{stage}.{block}"
        for stage, (count, new) in enumerate(zip(before, stages, strict=True), 1)
        for block in range(count, new)
    }

    def silent(block: dict[str, Any]) -> dict[str, Any]:
        return {**block, last: {**block[last], "scale": 0 * block[last]["scale"]}}

    params = {
        kind: {
            name: (silent(leaves) if kind == "params" else leaves)
            if name in added
            else model.params[kind][name]
            for name, leaves in collection.items()
        }
        for kind, collection in deeper.params.items()
    }
    apply = dataclasses.replace(deeper.apply, pool=model.apply.pool)  # type: ignore[type-var, attr-defined, call-arg]
    return struct.replace(deeper, params=params, apply=apply)
