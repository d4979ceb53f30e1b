"""What a step of the ascent costs beside a bare forward and backward pass of the same batch.

Command:  python scripts/bench.py [--model resnet18] [--size 64] [--batch 8]
Time:     two minutes on two cores.
Prints:   a table of medians: the bare, jitted gradient; a step of the plain ascent inside the
          scan; a step with everything `visualize` does by default; and their ratios. The three run
          in turn, so that a drift of the machine meets all of them.
"""

from __future__ import annotations

import argparse
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import rvis
from rvis import core, images, objectives, optimizers, projections, transforms
from rvis.types import Array, Model


@jax.jit
def bare(model: Model, batch: Array, units: Array) -> Array:
    """The gradient of one channel's logit for each image, and nothing else."""

    def score(batch: Array) -> Array:
        logits = model.apply(model.params, batch)
        return jnp.take_along_axis(logits, units[:, None], 1).sum()

    return jax.grad(score)(batch)


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--model", default="resnet18", help="an architecture; its weights are random")
    p.add_argument("--size", type=int, default=64)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--steps", type=int, default=8, help="of one call of the scan")
    p.add_argument("--rounds", type=int, default=9)
    a = p.parse_args(arguments)
    model = rvis.load(a.model, weights="random")
    shape = (a.size, a.size, model.input_shape[2])
    units = jnp.arange(a.batch)
    keys = jax.random.split(jax.random.key(0), a.batch)
    batch = jax.random.uniform(jax.random.key(1), (a.batch, *shape))
    objective = objectives.logit(np.arange(a.batch))
    problems = {
        "plain step in the scan": (
            core.Ascent(images.Pixel(shape), optimizers.steepest(0.5)),
            core.Problem(objective, (), projections.Box()),
        ),
        "default step in the scan": (
            core.Ascent(
                images.Fourier(shape),
                optimizers.adam(),
                views=transforms.lucid(a.size),
                woken=16,
            ),
            core.Problem(objective),
        ),
    }
    rows = {"bare forward and backward": lambda: bare(model, batch, units)}
    for name, (ascent, problem) in problems.items():
        many = problem.broadcast(a.batch)

        def steps(ascent: core.Ascent = ascent, many: core.Problem = many) -> Array:
            state = core.init(ascent, keys)
            _, info = core.run(ascent, keys, state, model, many, steps=a.steps)
            return info.score

        rows[name] = steps
    times: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(a.rounds + 1):
        for name, call in rows.items():
            count = a.steps if name.startswith("bare") else 1
            started = time.perf_counter()
            for _ in range(count):
                jax.block_until_ready(call())
            if turn:
                times[name].append((time.perf_counter() - started) / a.steps)
    base = float(np.median(times["bare forward and backward"]))
    print(
        f"{a.model}, {a.size} px, batch {a.batch}, {jax.default_backend()}, jax {jax.__version__}"
    )
    print("| | ms a step | ratio |")
    print("|---|---|---|")
    for name, taken in times.items():
        median = float(np.median(taken))
        print(f"| {name} | {1e3 * median:.0f} | {median / base:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
