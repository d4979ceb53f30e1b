"""What the public networks compute of seeded weights, and what ours do: FOLDER/NAME.npz.

Each holds `about` (JSON: our architecture, its fields, the layer, the sizes, and the reference's
state-dict as {entry: shape}) and, for each size, norm, shape and 128 values of the logits, of the
layer's activation (channels last) and of the gradient of image 0's logit 7. Every entry of the
state-dict is `seeded.weight(name, shape)`; the reference computed in float64. Written by
scripts/bench/parity.py.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis.models import architectures
from tests.golden import seeded

FOLDER = pathlib.Path(__file__).parent / "families"


def images(size: tuple[int, int]) -> np.ndarray:
    """One normalised image, channels last, float64."""
    return np.random.default_rng(sum(size)).standard_normal((1, *size, 3))


def computed(
    about: dict[str, Any], size: tuple[int, int], *, gradient: bool = True
) -> dict[str, np.ndarray]:
    """The same of our network, in the precision that is on, perhaps without the gradient."""
    state = {name: seeded.weight(name, tuple(shape)) for name, shape in about["shapes"].items()}
    # The images stand behind the normalisation.
    model = architectures.build(
        about["ours"], weights=state, config=about["config"], mean=(0.0,), std=(1.0,)
    )
    double = jax.config.jax_enable_x64  # type: ignore[attr-defined]
    kind = jnp.float64 if double else jnp.float32
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, kind), model.params)

    def forward(params: Any, pictures: jax.Array) -> Any:
        seen = {}

        def tap(name: str, activation: jax.Array) -> jax.Array:
            if name == about["layer"]:
                seen["activation"] = activation
            return activation

        # The reference has tokens as they are, and no grids.
        apply = getattr(model.apply, "inner", model.apply)
        logits = apply(params, pictures, tap=tap)
        return logits[0, 7], {"logits": logits, **seen}

    pictures = jnp.asarray(images(size), kind)
    if gradient:
        slope, found = jax.jit(jax.grad(forward, argnums=1, has_aux=True))(params, pictures)
        found = {**found, "gradient": slope}
    else:
        _, found = jax.jit(forward)(params, pictures)
    return {name: np.asarray(value) for name, value in found.items()}


def summary(name: str, value: np.ndarray) -> dict[str, np.ndarray]:
    """What a golden file keeps of an array."""
    return {
        f"{name}/shape": np.array(value.shape),
        f"{name}/norm": np.asarray(np.linalg.norm(value)),
        f"{name}/sample": sample(value).astype(np.float32),
    }


def sample(value: np.ndarray) -> np.ndarray:
    """At most 128 of an array's values, evenly spaced."""
    return value.reshape(-1)[np.unique(np.linspace(0, value.size - 1, 128).astype(np.int64))]


def save(name: str, about: dict[str, Any], golden: dict[str, np.ndarray]) -> None:
    """Writes a golden file."""
    FOLDER.mkdir(exist_ok=True)
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez_compressed(FOLDER / f"{name}.npz", about=text, **golden)  # type: ignore[arg-type]


def load(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `save` wrote."""
    with np.load(FOLDER / f"{name}.npz") as file:
        golden = dict(file)
    return json.loads(golden.pop("about").tobytes()), golden
