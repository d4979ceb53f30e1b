"""What each kernel of `rvis.kernels` gains on this machine, with the jaxlib that runs it.

    python scripts/bench/kernels.py [--only WORD] [--rounds 7]

Prints a table, and adds the ratios to scripts/results/kernels.json under the version of jaxlib.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import lax

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rvis import files, kernels
from rvis.kernels import convolution, pooling, threads, winograd
from rvis.kernels.convolution import Options

RESULTS = Path(__file__).resolve().parents[1] / "results" / "kernels.json"
Form = Callable[..., jax.Array]

# Of XLA's fusions into its library of small kernels, matrix products alone.
_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


@dataclasses.dataclass(frozen=True)
class Case:
    """Two forms of one operation.

    Attributes:
      kernel: the function that is measured.
      case: the operation and its shapes.
      plain: the form that would be there without the kernel.
      fast: the kernel.
      arguments: of both forms.
      compiler_options: of the fast form.
    """

    kernel: str
    case: str
    plain: Form
    fast: Form
    arguments: tuple[Any, ...]
    compiler_options: dict[str, str] | None = None


def drawn(*shape: int) -> np.ndarray:
    """Noise."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def convolutions() -> Iterator[Case]:
    """Convolutions of the usual networks: (n, side, in, out, kernel, stride)."""
    winograds = [
        (1, 56, 64, 192),
        (1, 56, 128, 128),
        (1, 28, 256, 256),
        (8, 32, 64, 64),
        (4, 16, 128, 128),
    ]
    for n, side, cin, cout in winograds:
        x, w = drawn(n, side, side, cin), drawn(3, 3, cin, cout) / 20
        options = Options((1, 1), ((1, 1), (1, 1)))
        examples = winograd.group(x.shape, options.pads, jnp.asarray(w))
        name = f"{n}×{side}²×{cin}→{cout}"
        yield Case(
            "winograd.convolve",
            f"3×3 {name}",
            functools.partial(convolution._stock, options=options),
            lambda x, w, p=options.pads, k=examples: winograd.convolve(
                x, w, p, k, transposed=False
            ),
            (x, w),
        )
    gathered = [
        (1, 56, 64, 64, 3, 1),
        (1, 28, 192, 32, 5, 1),
        (1, 28, 256, 512, 1, 1),
        (1, 224, 3, 64, 7, 2),
        (1, 224, 3, 64, 11, 4),
        (1, 56, 256, 512, 1, 2),
        (16, 28, 1, 32, 3, 1),
    ]
    for n, side, cin, cout, k, stride in gathered:
        g, w, size, options = _gradient(n, side, cin, cout, k, stride)
        yield Case(
            "convolution._gathered",
            f"{k}×{k}/{stride} {n}×{side}²×{cin}→{cout}",
            functools.partial(convolution._stock_input_gradient, size=size, options=options),
            lambda g, w, s=size, o=options: _without_winograd(g, w, s, o),
            (g, w),
        )
    scattered = [
        (1, 56, 128, 128, 3, 2),
        (4, 28, 64, 128, 3, 2),
        (1, 14, 512, 512, 3, 2),
        (1, 7, 512, 512, 3, 1),
    ]
    for n, side, cin, cout, k, stride in scattered:
        g, w, size, options = _gradient(n, side, cin, cout, k, stride)
        if not convolution._by_products(g, w, options):
            raise ValueError("a shape for which another form is chosen")
        yield Case(
            "convolution._scattered",
            f"{k}×{k}/{stride} {n}×{side}²×{cin}→{cout}",
            lambda g, w, s=size, o=options: convolution._gathered(g, w, s, o),
            lambda g, w, s=size, o=options: convolution._scattered(g, w, s, o),
            (g, w),
        )
    for n, side, cin, cout, k in [
        (1, 14, 512, 512, 3),
        (1, 28, 256, 256, 3),
        (1, 14, 1024, 256, 1),
    ]:
        g, w, size, options = _gradient(n, side, cin, cout, k, 1)
        yield Case(
            "convolution._turned",
            f"{k}×{k} {n}×{side}²×{cin}→{cout}",
            lambda g, w: _own_turn(g, w),
            lambda g, w: convolution._stock(g, convolution._turned(w, (1, 1)), options=_same(w)),
            (g, w),
        )
    for n, side, cin, cout, k, stride in [
        (32, 32, 32, 32, 3, 1),
        (32, 16, 64, 128, 3, 2),
        (1, 56, 64, 64, 3, 1),
        (32, 28, 1, 32, 3, 1),
        (64, 8, 128, 256, 1, 2),
    ]:
        g, w, _, options = _gradient(n, side, cin, cout, k, stride)
        yield Case(
            "convolution._by_cells",
            f"{k}×{k}/{stride} {n}×{side}²×{cin}→{cout}",
            functools.partial(convolution._stock_kernel_gradient, size=(k, k), options=options),
            lambda x, g, k=k, o=options: convolution._by_cells(x, g, (k, k), o),
            (drawn(n, side, side, cin), g),
        )


def depthwise() -> Iterator[Case]:
    """Depthwise convolutions: (n, side, channels, kernel, stride)."""
    for n, side, c, k, stride in [(4, 112, 96, 3, 1), (1, 56, 144, 3, 1), (1, 56, 144, 5, 2)]:
        g, _, size, options = _gradient(n, side, 1, c, k, stride)
        x, w, options = drawn(n, side, side, c), drawn(k, k, 1, c), options._replace(groups=c)
        name = f"{k}×{k}/{stride} {n}×{side}²×{c}"
        forms = [
            ("convolve", "", "", {}, (x, w)),
            ("input_gradient", "_input_gradient", "_input_gradient", {"size": size}, (g, w)),
        ]
        if n == 1:  # the stock form takes seconds
            own = "_kernel_gradient"
            forms.append(("kernel_gradient", own, own, {"size": (k, k)}, (x, g)))
        for kernel, plain, fast, sizes, arguments in forms:
            yield Case(
                f"depthwise.{kernel}",
                name,
                functools.partial(getattr(convolution, f"_stock{plain}"), options=options, **sizes),
                functools.partial(getattr(convolution, f"_fast{fast}"), options=options, **sizes),
                arguments,
            )


def _same(w: Any) -> Options:
    low = w.shape[0] // 2
    return Options((1, 1), ((low, low), (low, low)))


def _own_turn(w: Any, g: Any) -> jax.Array:
    return convolution._stock(g, lax.rev(w, (0, 1)).transpose(0, 1, 3, 2), options=_same(w))


def _gradient(n: int, side: int, cin: int, cout: int, k: int, stride: int) -> tuple[Any, ...]:
    """Cotangent, kernel, the input's size and options, padded as SAME."""
    pads = lax.padtype_to_pads((side, side), (k, k), (stride, stride), "SAME")
    options = Options((stride, stride), tuple(pads))  # type: ignore[arg-type]
    out = -(-side // stride)
    return drawn(n, out, out, cout), drawn(k, k, cin, cout) / 20, (side, side), options


def _without_winograd(g: Any, w: Any, size: Any, options: Options) -> jax.Array:
    original, winograd.group = winograd.group, lambda *_: 0
    try:
        return convolution._gathered(g, w, size, options)
    finally:
        winograd.group = original


def pools() -> Iterator[Case]:
    """Pools: (n, side, channels, window, stride)."""
    for n, side, c, window, stride, pad in [
        (1, 112, 64, 3, 2, 1),
        (1, 28, 256, 3, 1, 1),
        (4, 55, 64, 3, 2, 0),
        (1, 224, 64, 2, 2, 0),
        (16, 28, 32, 2, 2, 0),
    ]:
        options = {"window": (window,) * 2, "strides": (stride,) * 2, "pads": ((pad, pad),) * 2}
        x = drawn(n, side, side, c)
        y = pooling._stock(x, **options)
        name = f"{window}×{window}/{stride} {n}×{side}²×{c}"
        if window > stride:
            yield Case(
                "pooling._fast",
                name,
                functools.partial(pooling._stock, **options),
                functools.partial(pooling._fast, **options),
                (x,),
            )
        yield Case(
            "pooling._overlapping" if window > stride else "pooling._apart",
            name,
            lambda g, x, y, o=options: pooling._stock_gradient(x, y, g, **o),
            lambda g, x, y, o=options: pooling._fast_gradient(x, y, g, **o),
            (drawn(*y.shape), x, y),
        )


def programs() -> Iterator[Case]:
    """A compiler option that rvis had until it no longer paid, on whole networks."""
    import rvis

    for name, width, size in [
        ("cifar10_resnet", 4, 32),
        ("mnist_cnn", 4, 28),
        ("resnet18", 1, 224),
    ]:
        model = rvis.load(name, weights="random") if name == "resnet18" else rvis.load(name)
        x = np.random.default_rng(0).random((width, size, size, model.input_shape[2]), np.float32)

        def gradient(x: Any, params: Any, model: Any = model) -> jax.Array:
            return jax.grad(lambda x: model.apply(params, x)[:, 3].sum())(x)

        def forward(x: Any, params: Any, model: Any = model) -> jax.Array:
            return model.apply(params, x)

        for what, function in (("gradient", gradient), ("forward", forward)):
            yield Case(
                "XLA option, not used",
                f"{what} of {name}, {width}×{size}²",
                function,
                function,
                (x, model.params),
                _OPTIONS,
            )


def looped(form: Form, options: dict[str, str] | None, count: int) -> Any:
    """`count` calls in a compiled loop, each waiting for the one before."""

    def run(first: Any, *others: Any) -> Any:
        def body(_: Any, carried: Any) -> Any:
            # Carried on, so that XLA has to write all of it.
            y = form(carried[0], *others)
            return first * (1 + 1e-9 * y.ravel()[0]), y

        shape = jax.eval_shape(form, first, *others)
        return lax.fori_loop(0, count, body, (first, jnp.zeros(shape.shape, shape.dtype)))

    return jax.jit(run, compiler_options=options)


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Milliseconds of both forms, and how often the fast one goes into the plain one's time."""
    arguments = jax.tree.map(jnp.asarray, case.arguments)
    seconds: list[list[float]] = [[], []]
    with kernels.stock(False):
        forms = [(case.plain, None), (case.fast, case.compiler_options)]
        calls, first = [], []
        probe = looped(case.plain, None, 1)
        jax.block_until_ready(probe(*arguments))
        started = time.perf_counter()
        jax.block_until_ready(probe(*arguments))
        count = int(np.clip(0.15 / (time.perf_counter() - started), 2, 500))
        for form, options in forms:
            started = time.perf_counter()
            calls.append(looped(form, options, count).lower(*arguments).compile())
            first.append(time.perf_counter() - started)
        for _ in range(rounds):
            for call, times in zip(calls, seconds, strict=True):
                started = time.perf_counter()
                jax.block_until_ready(call(*arguments))
                times.append((time.perf_counter() - started) / count)
        ratio = float(np.median(np.divide(seconds[0], seconds[1])))
    plain, fast = (1e3 * float(np.median(times)) for times in seconds)
    return {
        "kernel": case.kernel,
        "case": case.case,
        "plain_ms": round(plain, 3),
        "fast_ms": round(fast, 3),
        "ratio": round(ratio, 2),
        "compile_s": [round(one, 2) for one in first],
    }


def main() -> None:
    """Measures all kernels, or those whose names have a word in them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a part of the kernel's name")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    print(f"jaxlib {jaxlib.__version__}, {threads.cores()} cores", flush=True)
    rows = []
    for case in (*convolutions(), *depthwise(), *pools(), *programs()):
        if arguments.only in case.kernel:
            rows.append(measure(case, arguments.rounds))
            row = rows[-1]
            times = f"{row['plain_ms']:9.3f} {row['fast_ms']:9.3f} {row['ratio']:6.2f}"
            print(f"{row['kernel']:24} {row['case']:36} {times}  {row['compile_s']}", flush=True)
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    before = kept.get(jaxlib.__version__, {}).get("rows", [])
    others = [row for row in before if arguments.only not in row["kernel"]]
    kept[jaxlib.__version__] = {"cores": threads.cores(), "rows": others + rows}
    files.write_json(RESULTS, kept)


if __name__ == "__main__":
    main()
