"""A Flax network of your own: trained here on drawn shapes, then seen, explained and attacked.

Command:  python scripts/examples/your_own_network.py --out out/own
Time:     ten seconds on two cores.
Writes:   three figures. Opens as a notebook in an editor that knows `# %%` cells.
"""

# %%
import argparse
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import rvis
from rvis import attacks, attribution
from rvis.objectives import logit
from rvis.plotting import grids

parser = argparse.ArgumentParser(description="A network of your own.")
parser.add_argument("--out", type=Path, default=Path("out/own"))
out = parser.parse_known_args()[0].out

# %%
CLASSES = ("disc", "bars", "frame")
rng, (y, x) = np.random.default_rng(0), np.mgrid[:16, :16]
labels = rng.integers(0, 3, 300)
ink = [np.hypot(y - 8, x - 8) < 5, (x // 2) % 2 == 0, np.maximum(abs(y - 8), abs(x - 8)) // 2 == 2]
images = np.stack([np.roll(ink[k], rng.integers(-2, 3, 2), (0, 1)) for k in labels])[..., None]
images = (0.2 + 0.6 * images + rng.normal(0, 0.05, images.shape)).clip(0, 1).astype(np.float32)

net = nn.Sequential([nn.Conv(8, (5, 5)), nn.relu, lambda x: x.mean((1, 2)), nn.Dense(3)])
variables, adam = net.init(jax.random.key(0), images[:1]), optax.adam(0.03)


# %%
def loss(variables):
    """The mean cross-entropy of all images."""
    logits = net.apply(variables, images - 0.5)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


state, gradient, update = adam.init(variables), jax.jit(jax.grad(loss)), jax.jit(adam.update)
for _ in range(100):
    updates, state = update(gradient(variables), state)
    variables = optax.apply_updates(variables, updates)

# %% The same mean as in training; layers have the names of the submodules.
model = rvis.from_linen(net, variables, input_shape=(16, 16, 1), classes=CLASSES, mean=(0.5,))
print(model.layers, f"accuracy {(jnp.argmax(model(images), -1) == labels).mean():.0%}")

# %%
grids.save(rvis.visualize(model, logit(range(3)), steps=64).show(), out / "classes.png")
maps = attribution.integrated_gradients(model, images[:6], labels[:6], baseline=0.2)
grids.save(maps.show(), out / "attribution.png")
grids.save(attacks.pgd(model, images[:6], labels[:6], eps=0.1).show(), out / "attack.png")
