"""Is an attack worth its figure? What must hold of any, run on a model and an attack of yours."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from rvis import checks, engine, gate, struct
from rvis.attacks.attack import balls
from rvis.attacks.gradient import fgsm
from rvis.attacks.losses import Margin
from rvis.attacks.request import Request, draws, image_logits, predict, prepare
from rvis.attacks.result import distances
from rvis.attacks.square import square
from rvis.types import (
    LOGITS,
    Apply,
    Array,
    ArrayLike,
    KeyLike,
    Model,
    PyTree,
    Relu,
    Tap,
    fold_each,
    identity,
)


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that must hold.

    Attributes:
      name: of the check.
      passed: whether it held.
      figure: what was measured.
      meaning: what it means where it does not hold.
    """

    name: str
    passed: bool
    figure: str
    meaning: str


@dataclasses.dataclass(frozen=True)
class Report:
    """What `verify` found; `str` of it is a readable page."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check held."""
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of those that did not."""
        return tuple(check.name for check in self.checks if not check.passed)

    def __getitem__(self, name: str) -> Check:
        names = [check.name for check in self.checks]
        return self.checks[names.index(checks.choice("name", name, names))]

    def __str__(self) -> str:
        lines = []
        for check in self.checks:
            lines.append(f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.figure}")
            if not check.passed:
                lines.append(f"      {check.meaning}")
        held = sum(check.passed for check in self.checks)
        return "\n".join([*lines, f"{held} of {len(self.checks)} checks hold"])


@dataclasses.dataclass(frozen=True)
class _Scaled:
    """A model's `apply` whose logits are multiplied."""

    apply: Apply
    factor: float

    def __call__(
        self, params: PyTree, images: Array, *, tap: Tap = identity, relu: Relu = jax.nn.relu
    ) -> Array:
        return self.factor * self.apply(params, images, tap=tap, relu=relu)


@gate.public
def verify(
    model: Model,
    attack: Callable[..., Any],
    images: ArrayLike,
    labels: Any,
    *,
    eps: float,
    norm: str = "linf",
    queries: int = 200,
    tolerance: float = 0.02,
    key: KeyLike = 0,
    progress: bool = True,
    **options: Any,
) -> Report:
    """Checks an untargeted attack, and the model that it is run on, for what must hold of any.

    The model gives logits; its gradient is neither zero nor flat; ε = 0 changes no bit; the images
    stay in the ball and in [0, 1]; success does not fall as ε grows, and is complete without a
    bound; logits times a thousand change nothing; an image's result does not depend on its company;
    the attack does at least as well as a random search that sees the logits alone, as a single
    step, and as noise. The last of these may fail because of the model, the attack, or both: the
    report says what a failure means.

    Args:
      model: any model.
      attack: `attack(model, images, labels, eps=…, norm=…, **options)`, which gives an
        `AttackResult` or an array (n, H, W, C). Those of `rvis.attacks` with an ε will do.
      images: (n, H, W, C), float32 in [0, 1], two at least that the model gets right; the others
        are left out.
      labels: (n,) true classes.
      eps: the radius at which to check, at which some images should hold and others fall.
      norm: "linf" or "l2".
      queries: of the random search, for each image.
      tolerance: by what share of the images one success rate may fall short of another.
      key: of the noise and of the random search.
      progress: a bar on a terminal.
      **options: handed on to the attack.

    Returns:
      A `Report`.

    Raises:
      ValueError, TypeError: naming the argument; also where the attack returns anything else.

    Example:
      >>> import functools, numpy as np, rvis
      >>> from rvis import attacks
      >>> def apply(params, images, *, tap=lambda name, x: x, relu=None):
      ...     return tap("out", images.reshape(len(images), -1) @ params)
      >>> weights = np.random.default_rng(0).standard_normal((16, 3)).astype(np.float32)
      >>> model = rvis.Model(weights, apply, layers=("out",), input_shape=(4, 4, 1))
      >>> images = np.random.default_rng(1).random((4, 4, 4, 1)).astype(np.float32)
      >>> pgd = functools.partial(attacks.pgd, steps=4, loss="margin")
      >>> report = attacks.verify(model, pgd, images, model(images).argmax(1), eps=0.1, queries=9)
      >>> report.passed
      True

    Reference: Carlini et al. 2019, On Evaluating Adversarial Robustness, section 5; Athalye,
      Carlini & Wagner 2018, Obfuscated Gradients Give a False Sense of Security, section 3.1.
    """
    if not callable(attack):
        raise TypeError(f"attack: a function was expected, given {attack!r}")
    checks.number("eps", eps, above=0)
    checks.count("queries", queries)
    checks.number("tolerance", tolerance, low=0, high=1)
    request = prepare(model, images, labels, norm=norm, key=key, norms=("linf", "l2"))
    right = np.flatnonzero(request.clean == request.labels)
    if len(right) < 2:
        raise ValueError(
            f"images: two at least that {model.name} classifies as their labels were expected, "
            f"given {len(right)}"
        )
    request = dataclasses.replace(
        request.rows(right), eps=np.full(len(right), eps, np.float32), single=False
    )
    trial = _Trial(model, attack, request.images, request.labels, norm, options)
    return Report(tuple(_checks(trial, request, queries, tolerance, key, progress)))


@dataclasses.dataclass(frozen=True)
class _Trial:
    """An attack on some images, and how to run it once more with something changed."""

    model: Model
    attack: Callable[..., Any]
    images: np.ndarray
    labels: np.ndarray
    norm: str
    options: dict[str, Any]

    def __call__(
        self, eps: float, model: Model | None = None, rows: np.ndarray | None = None
    ) -> np.ndarray:
        """Attacked images, (n, H, W, C), as the attack gave them."""
        rows = np.arange(len(self.images)) if rows is None else rows
        images = self.images[rows]
        given = self.attack(
            model or self.model, images, self.labels[rows], eps=eps, norm=self.norm, **self.options
        )
        made = np.asarray(getattr(given, "images", given))
        if made.shape != images.shape or not np.issubdtype(made.dtype, np.floating):
            raise ValueError(
                f"attack: floating-point images of shape {images.shape} were expected from it, "
                f"given shape {made.shape}, dtype {made.dtype}"
            )
        return made

    def fooled(self, made: np.ndarray) -> np.ndarray:
        """Whether each of (n, H, W, C) fools the model itself."""
        return predict(self.model, np.clip(made, 0, 1).astype(np.float32)) != self.labels


def _checks(
    trial: _Trial, request: Request, queries: int, tolerance: float, key: KeyLike, progress: bool
) -> Iterator[Check]:
    """Check after check, the cheap ones first."""
    model, images, labels, norm = trial.model, trial.images, trial.labels, trial.norm
    count, eps = len(images), float(request.eps[0])
    slack = tolerance + 1e-9

    def rate(fooled: np.ndarray) -> str:
        return f"{fooled.mean():.1%}"

    yield from circumstances(request, slack)
    z = request.logits
    gradients, alive = _gradients(request)
    predicted, gained = _rises(trial, gradients, eps)
    follows = gained > 0
    follows |= predicted <= 1e-6 * np.abs(z).max(1)  # too little to be seen in float32
    yield Check(
        "slope",
        bool(follows[alive].mean() >= 0.9) if alive.any() else False,
        f"a small step along the gradient raises the margin for {follows[alive].sum()} of "
        f"{alive.sum()} images",
        "gradient masking: the gradient does not tell where the margin rises (steps, noise or a "
        "stand-in in the backward pass)",
    )
    still = trial(0.0)
    same = (still == images).reshape(count, -1).all(1)
    yield Check(
        "identity",
        bool(same.all()),
        f"eps 0 returned {same.sum()} of {count} images bit for bit",
        "the attack changes images that it must not touch: a random start, a change of range or a "
        "projection outside the ball",
    )
    radii = [eps / 2, eps, 2 * eps, 4 * eps]
    made = [trial(radius) for radius in radii]
    outside = [_outside(images, m, r, norm) for m, r in zip(made, radii, strict=True)]
    worst = max(max(over) for over in outside)
    yield Check(
        "ball",
        worst <= 0,
        "every image lies in the ball and in [0, 1]"
        if worst <= 0
        else f"the worst lies {worst:.3g} outside",
        "the attack leaves the ball or [0, 1]: its successes are not of the radius that it claims",
    )
    fooled = [trial.fooled(m) for m in made]
    widest = 1.0 if norm == "linf" else float(np.sqrt(images[0].size))
    free = trial.fooled(trial(widest))
    yield Check(
        "unbounded",
        bool(free.all()),
        f"{rate(free)} of images fall at eps {widest:.3g}",
        "an image in [0, 1] of another class is always in reach: the attack does not find what "
        "there is, so that its failures prove nothing",
    )
    rates = [f.mean() for f in fooled]
    falls = max(before - after for before, after in itertools.pairwise(rates))
    yield Check(
        "monotone",
        bool(falls <= slack),
        "success " + ", ".join(f"{r:.1%} at {e:.3g}" for r, e in zip(rates, radii, strict=True)),
        "success falls as eps grows, though the larger ball holds the smaller: steps that do not "
        "suit the radius, or masked gradients",
    )
    loud = struct.replace(model, apply=_Scaled(model.apply, 1000.0))
    at = fooled[1]
    scaled = trial.fooled(trial(eps, model=loud))
    yield Check(
        "scale",
        bool(abs(scaled.mean() - at.mean()) <= max(slack, 1.001 / count)),
        f"success {rate(at)}, with logits times 1000 {rate(scaled)}",
        "the loss saturates where the network is sure: a margin or DLR loss, or a cross-entropy of "
        "rescaled logits, would be right",
    )
    worst = 0.0
    for keep in (0, 1):
        own = np.arange(count) % 2 == keep
        # The same places with other company; were the others only moved, a mean would not tell.
        rows = np.where(own, np.arange(count), keep)
        again = trial(eps, rows=rows)
        worst = max(worst, float(np.abs(again - made[1])[own].max()))
    yield Check(
        "batch",
        worst <= 1e-5,
        f"with other images beside it, an image's result moves by {worst:.3g}",
        "images of a batch act upon each other (a loss or a norm over the batch, batch statistics, "
        "one stop for all): results depend on the company",
    )
    blind = square(
        model, images, labels, norm=norm, eps=eps, steps=queries, key=key, progress=progress
    ).success
    yield Check(
        "black box",
        bool(at.mean() >= blind.mean() - slack),
        f"success {rate(at)}, random search with {queries} queries {rate(blind)}",
        "gradient masking, or too weak an attack: a search that sees no gradient does better",
    )
    single = fgsm(
        model, images, labels, norm=norm, eps=eps, loss="margin", progress=progress
    ).success
    yield Check(
        "single step",
        bool(at.mean() >= single.mean() - slack),
        f"success {rate(at)}, a single step along the gradient {rate(single)}",
        "many steps do worse than one: a step size that does not suit, or masked gradients",
    )
    # Other chances than those of the attack, which may start from noise itself.
    chances = jax.random.key_data(fold_each(request.key, request.numbers))
    noise = engine.apply(_noise, model, (balls(request), chances), pixels=request.pixels)
    noisy = trial.fooled(noise[:, 0])
    yield Check(
        "noise",
        bool(min(at.mean(), single.mean()) >= noisy.mean() - slack),
        f"success {rate(at)}, a single step {rate(single)}, noise {rate(noisy)}",
        "gradient masking: noise does better than following the gradient",
    )


def circumstances(request: Request, slack: float = 1e-9) -> Iterator[Check]:
    """What must hold of the model alone, on the images of a request, for attacks to say anything.

    Args:
      request: of images and their labels.
      slack: the share of images that need no gradient.
    """
    z = request.logits
    sums = np.abs(z.sum(1) - 1).max()
    softmax = bool((z >= 0).all() and sums < 1e-3)
    yield Check(
        "logits",
        not softmax,
        f"rows sum to {z.sum(1).min():.4g} to {z.sum(1).max():.4g}, least entry {z.min():.4g}",
        "probabilities given for logits: a second softmax flattens the loss, and gradients of what "
        "the network is sure of vanish",
    )
    top = np.sort(z, 1)
    gap = float(np.median(top[:, -1] - top[:, -2]))
    yield Check(
        "saturation",
        gap < 60,
        f"half of the images lead by a logit gap of {gap:.3g} or more",
        "the cross-entropy of gaps above 88 is 0 in float32: losses of others that divide or "
        "exponentiate logits have no gradient here, though those of rvis do",
    )
    random = draws(request.model)
    yield Check(
        "same outputs",
        not random,
        f"the network is {'' if random else 'no '}function of a key",
        'the network draws: attacks must average over draws (`eot`, `version="rand"`)',
    )
    _, alive = _gradients(request)
    yield Check(
        "gradient",
        bool(alive.mean() >= 1 - slack),
        f"zero or not finite for {(~alive).sum()} of {len(alive)} images",
        "gradient masking: the model gives no gradient to climb, and what a gradient attack does "
        "not find says nothing of robustness",
    )


def _gradients(request: Request) -> tuple[np.ndarray, np.ndarray]:
    """The margins' gradients (n, H, W, C), and where they are neither zero nor infinite, (n,)."""
    problems = (request.images, request.labels)
    gradients = engine.apply(_slope, request.model, problems, pixels=request.pixels)
    sizes = np.sqrt(np.square(gradients.astype(np.float64)).sum((1, 2, 3)))
    return gradients, np.isfinite(sizes) & (sizes > 0)


def _slope(model: Model, problem: tuple[Array, Array]) -> Array:
    """The margin's gradient at an image, of its label."""
    image, label = problem

    def margin(image: Array) -> Array:
        return Margin(label)({LOGITS: model.apply(model.params, image[None])})

    return jax.grad(margin)(image)


def _noise(model: Model, problem: tuple[Any, Array]) -> Array:
    """A uniform draw from a ball."""
    del model
    ball, data = problem
    return ball.sample(jax.random.wrap_key_data(data, impl="threefry2x32"))


def _logits(model: Model, images: np.ndarray) -> np.ndarray:
    """(n, k) float64."""
    pixels = images.shape[1] * images.shape[2]
    return engine.apply(image_logits, model, images, pixels=pixels).astype(np.float64)


def _rises(trial: _Trial, gradients: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """By how much a small step along the gradient should raise each margin, and did."""
    sizes = np.sqrt(np.square(gradients).sum((1, 2, 3), keepdims=True))
    # A twentieth of the ball, whose L2 radius at the corners is eps·√(H·W·C).
    reach = eps / 20 * (np.sqrt(trial.images[0].size) if trial.norm == "linf" else 1)
    step = reach * gradients / np.where(sizes > 0, sizes, 1)
    moved = np.clip(trial.images + step, 0, 1).astype(np.float32)
    predicted = ((moved - trial.images) * gradients).sum((1, 2, 3))
    rows = np.arange(len(moved))

    def margins(images: np.ndarray) -> np.ndarray:
        z = _logits(trial.model, images)
        own = z[rows, trial.labels].copy()
        z[rows, trial.labels] = -np.inf
        return z.max(1) - own

    return predicted, margins(moved) - margins(trial.images)


def _outside(images: np.ndarray, made: np.ndarray, eps: float, norm: str) -> tuple[float, float]:
    """By how much the worst image lies outside the ball, and outside [0, 1]; inf for NaN."""
    if not np.isfinite(made).all():
        return np.inf, np.inf
    # A part in a million, and the rounding of a float32 pixel.
    rounding = 2.0**-24 * (np.sqrt(images[0].size) if norm == "l2" else 1)
    over = distances(images, made, norm).max() - eps * (1 + 1e-6) - rounding
    return float(over), float(max(-made.min(), made.max() - 1))
