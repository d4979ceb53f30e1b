"""Sweeps of ε: accuracy against it for a whole set of images, and the smallest that fools each."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import PIL.Image

from rvis import charts, checks, files, plots
from rvis.attacks.apgd import plan_apgd
from rvis.attacks.gradient import balls, plan_basic, plan_projected
from rvis.attacks.losses import aim
from rvis.attacks.pursuit import Plan, pursue
from rvis.attacks.result import NORMS, AttackResult, Request, filled, lanes, prepare
from rvis.attacks.square import plan_square
from rvis.projections import Projection
from rvis.results import describe
from rvis.types import Array, ArrayLike, KeyLike, Model


class _Kind(NamedTuple):
    """An attack by name: how to plan it, its steps and norms, whether it takes a start."""

    plan: Callable[..., Plan]
    steps: int
    norms: tuple[str, ...] = NORMS
    starts: bool = True


ATTACKS: Mapping[str, _Kind] = {
    "bim": _Kind(plan_basic, 10, starts=False),
    "pgd": _Kind(plan_projected, 40),
    "apgd": _Kind(plan_apgd, 100, ("linf", "l2")),
    "square": _Kind(plan_square, 5000, ("linf", "l2"), starts=False),
}


@dataclasses.dataclass(frozen=True, eq=False)
class RobustnessCurve:
    """How many images a network takes for what they are, against the radius of an attack.

    Attributes:
      epsilons: (k,) the radii in rising order.
      accuracies: (k,) the share of images that were not fooled at each; it never rises.
      smallest: (n,) the smallest of the radii at which each image was fooled, inf where none did.
      iterations: (n,) the attack's steps until it was fooled there, −1 where it never was; 0 where
        the model is wrong to begin with.
      clean: the share of images that the model takes for what they are.
      norm: the attack's.
      attack: its name.
      model: the network's name.
      config: the arguments and package versions, as JSON-able values.
    """

    epsilons: np.ndarray
    accuracies: np.ndarray
    smallest: np.ndarray
    iterations: np.ndarray
    clean: float
    norm: str
    attack: str
    model: str
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def margins(self) -> np.ndarray:
        """(k,) half of the accuracies' 95 % intervals over draws of images (Wilson's)."""
        n, p = len(self.smallest), self.accuracies
        return 1.96 / (1 + 1.96**2 / n) * np.sqrt(p * (1 - p) / n + 1.96**2 / (4 * n**2))

    def show(self, *others: RobustnessCurve) -> PIL.Image.Image:
        """The curve as a figure, beside others of the same norm.

        Raises:
          ValueError: naming `others`, for another norm.
        """
        drawn = (self, *others)
        if any(curve.norm != self.norm for curve in others):
            norms = [curve.norm for curve in others]
            raise ValueError(f"others: curves in {self.norm!r} were expected, given {norms}")
        told = [(c.model, c.attack, f"{len(c.smallest)} images") for c in drawn]
        # What all have in common is the title, what tells them apart the legend.
        parts = list(zip(*told, strict=True))
        lines: dict[str, Any] = {}
        for i, curve in enumerate(drawn):
            name = ", ".join(part[i] for part in parts if len(set(part)) > 1) or "_"
            name = f"{name} ({i + 1})" if name in lines else name
            lines[name] = curve.epsilons, curve.accuracies
        return charts.chart(
            lines,
            lines,
            xlabel=f"epsilon ({self.norm})",
            ylabel="accuracy under attack",
            title=", ".join(part[0] for part in parts if len(set(part)) == 1),
            xrange=(0.0, max(float(curve.epsilons[-1]) for curve in drawn) or 1.0),
            yrange=(0.0, 1.0),
        )

    def save(self, folder: str | Path, name: str = "robustness") -> Path:
        """Writes the figure (PNG), the table (CSV) and a card (JSON) into `folder`.

        Args:
          folder: where to; made if it is not there.
          name: of the files, before their endings.

        Raises:
          OSError: naming the path, on a full disk or without permission.

        Example:
          >>> import tempfile, numpy as np
          >>> from rvis.attacks import RobustnessCurve
          >>> numbers = np.array([0.1, 0.2]), np.array([0.5, 0.0]), np.array([0.1, 0.2])
          >>> curve = RobustnessCurve(*numbers, np.array([3, 1]), 1.0, "linf", "pgd", "mine")
          >>> with tempfile.TemporaryDirectory() as folder:
          ...     sorted(path.name for path in curve.save(folder).iterdir())
          ['robustness.csv', 'robustness.json', 'robustness.png']
        """
        place = Path(folder)
        plots.save(self.show(), place / f"{name}.png")
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["epsilon", "accuracy", "margin"])
        columns = (self.epsilons, self.accuracies, self.margins)
        table.writerows(
            [f"{e:.8g}", f"{a:.6f}", f"{m:.6f}"] for e, a, m in zip(*columns, strict=True)
        )
        files.write_text(place / f"{name}.csv", text.getvalue())
        card = {
            "model": self.model,
            "attack": self.attack,
            "norm": self.norm,
            "images": len(self.smallest),
            "clean": self.clean,
            "epsilons": self.epsilons,
            "accuracies": self.accuracies,
            "smallest": [None if math.isinf(e) else e for e in self.smallest.tolist()],
            "iterations": self.iterations,
            "config": dict(self.config),
        }
        files.write_json(place / f"{name}.json", card)
        return place


def robustness(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    epsilons: Sequence[float],
    norm: str = "linf",
    attack: str = "pgd",
    steps: int | None = None,
    loss: str | None = None,
    targeted: bool = False,
    key: KeyLike = 0,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> RobustnessCurve:
    """Accuracy under attack against ε.

    What is fooled at one ε is fooled at every larger one, whose ball holds the same image, so that
    the curve never rises. An image that holds at one counts as holding at the smaller ones. So the
    radius of each is looked for by bisection, all in one compiled program. As a rule it goes from
    the large radii down, for an image leaves an attack as soon as it is fooled and only one that
    holds takes all steps; what fooled it, put into the smaller ball, is where a gradient attack
    starts from then.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      labels: (n,) or one class: the true ones, or targets.
      epsilons: radii of at least 0, in units of the [0, 1] image, in any order.
      norm: "linf", "l2" or "l1", as the attack knows.
      attack: "pgd", "apgd", "bim" or "square".
      steps: of each attack; by default 40, 100, 10 and 5000.
      loss: "ce", "dlr" or "margin"; the attack's own by default.
      targeted: whether to go towards `labels` instead of away from them.
      key: an int seed or a typed key, for the attacks' chances.
      checkpoint: a folder in which an interrupted run leaves what it has, and from which the same
        call goes on. It is removed when the run has ended.
      progress: a bar on a terminal.

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled; naming `checkpoint`,
        if the folder holds another run's state.
      FloatingPointError: naming the images whose loss became NaN.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attacks
      >>> model = rvis.load("mnist_cnn")
      >>> digits = np.full((2, 28, 28, 1), 0.5, np.float32)
      >>> curve = attacks.robustness(model, digits, [3, 8], epsilons=(0.1, 0.3), steps=4)
      >>> bool(curve.accuracies[0] >= curve.accuracies[1])
      True
    """
    kind = ATTACKS[checks.choice("attack", attack, ATTACKS)]
    radii = np.asarray(sorted({checks.number("epsilons", e, low=0) for e in _listed(epsilons)}))
    if not radii.size:
        raise ValueError("epsilons: at least one number was expected, given none")
    steps = kind.steps if steps is None else checks.count("steps", steps)
    request = prepare(
        model, images, labels, norm=norm, targeted=targeted, key=key, norms=kind.norms
    )
    options: dict[str, Any] = {}
    if loss is not None:
        aim(request, loss)  # refuses a wrong name now, before the model is run
        options["loss"] = loss
    count, last = len(request.images), len(radii)
    # Each image holds at `low` and everything before it, and is fooled at `high` and after.
    low = np.full(count, -1)
    high = np.where(request.solved, 0, last)
    iterations = np.where(request.solved, 0, -1)
    low[~request.solved] += int(radii[0] == 0)
    folder = None if checkpoint is None else Path(checkpoint)
    written = []
    nearest = request.images.copy()
    for number in itertools.count():
        rows = np.flatnonzero(high - low > 1)
        if not rows.size:
            break
        middle = low[rows] + _ahead(last + 1)[high[rows] - low[rows]]
        radius = np.minimum(radii[middle].astype(np.float32), request.eps[rows])
        asked = dataclasses.replace(request.rows(rows), eps=radius)
        if kind.starts:
            options |= {"given": nearest[rows], "drawn": high[rows] == last}
        file = None if folder is None else folder / f"round{number:02d}.npz"
        plan = kind.plan(asked, steps=steps, **options).stopping()
        label = f"{attack}, round {number + 1}"
        found = pursue(plan, asked, checkpoint=file, progress=progress, label=label)
        written.append(file)
        won = found.fooled
        high[rows[won]] = middle[won]
        low[rows[~won]] = middle[~won]
        iterations[rows[won]] = found.since[won]
        nearest[rows[won]] = found.images[won]
        # As long as it still fools when it is put into the next smaller ball, no attack is needed.
        falling = rows[won] if kind.starts else rows[:0]
        while (falling := falling[high[falling] - low[falling] > 1]).size:
            following = radii[high[falling] - 1].astype(np.float32)
            inner = dataclasses.replace(request.rows(falling), eps=following)
            pulled, fooled = _pulled(inner, nearest[falling])
            falling = falling[fooled]
            nearest[falling] = pulled[fooled]
            high[falling] -= 1
    for file in written:
        if file is not None:
            file.unlink(missing_ok=True)
    if folder is not None and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    config = describe(
        function="robustness",
        model=model.name,
        attack=attack,
        norm=norm,
        epsilons=radii,
        steps=steps,
        loss=loss,
        targeted=targeted,
        key=key,
        images=request.images,
        labels=request.labels,
    )
    return RobustnessCurve(
        radii,
        np.asarray([float((high > i).mean()) for i in range(last)]),
        np.append(radii, np.inf)[high],
        iterations,
        float(1 - request.solved.mean()),
        norm,
        attack,
        model.name,
        config,
    )


def _pulled(request: Request, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`images` put into the request's balls, and which of them fool."""
    ball = balls(request)
    found = []
    for rows, some in filled(len(images), lanes(request.shape)):
        own = jax.tree.map(lambda leaf, r=rows: np.asarray(leaf)[r], ball)
        moved, classes = _put(request.model, own, images[rows, None])
        found.append((np.asarray(moved)[:some, 0], np.asarray(classes)[:some]))
    moved, classes = map(np.concatenate, zip(*found, strict=True))
    return moved, (classes == request.labels) == request.targeted


@jax.jit
def _put(model: Model, ball: Projection, images: Array) -> tuple[Array, Array]:
    moved = jax.vmap(lambda ball, image: ball.project(image))(ball, images)
    return moved, model.apply(model.params, moved[:, 0]).argmax(-1)


@functools.cache
def _ahead(most: int) -> np.ndarray:
    """How far above the largest radius that held to try next, with m possible answers left.

    Of all orders the one that takes least on average, each answer being as likely as any other: an
    attack that fails costs 1, one that succeeds `_SUCCESS`.
    """
    cost, step = [0.0, 0.0], [0, 0]
    for m in range(2, most + 1):
        totals = [(s * (_SUCCESS + cost[s]) + (m - s) * (1 + cost[m - s])) / m for s in range(1, m)]
        cost.append(min(totals))
        # With s answers at or below the radius tried, it is the s-th.
        step.append(1 + int(np.argmin(totals)))
    return np.asarray(step)


_SUCCESS = 0.3
"""Measured on the shipped networks: images leave after some third of PGD's steps."""


def _listed(epsilons: Any) -> Sequence[Any]:
    if isinstance(epsilons, (str, bytes)) or np.ndim(epsilons) != 1:
        raise TypeError(f"epsilons: a list of numbers was expected, given {epsilons!r}")
    return list(epsilons)


def smallest_epsilon(
    attack: Callable[..., AttackResult],
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    high: float,
    rounds: int = 10,
) -> np.ndarray:
    """The smallest radius at which an attack fools the model, for each image, by bisection.

    All images are attacked together, each at its own radius, so that the attack compiles once.

    Args:
      attack: `attack(model, images, labels, eps=radii)` with radii (n,) gives an `AttackResult`,
        such as `functools.partial(rvis.attacks.pgd, norm="l2", steps=20)`.
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      labels: (n,) or one class, as the attack takes them.
      high: the largest radius to try, in the attack's norm.
      rounds: attacks after the first; each halves the interval.

    Returns:
      (n,) float64, radii at which the attack did succeed, at most high/2^rounds above one at which
      it did not; 0 where the model is wrong to begin with, inf where the attack failed at `high`.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import functools, numpy as np, rvis
      >>> from rvis import attacks
      >>> model = rvis.load("mnist_cnn")
      >>> digit = np.full((28, 28, 1), 0.5, np.float32)
      >>> attack = functools.partial(attacks.fgsm, norm="linf")
      >>> attacks.smallest_epsilon(attack, model, digit, 3, high=0.5, rounds=3).shape
      (1,)
    """
    if not callable(attack):
        raise TypeError(f"attack: a function such as rvis.attacks.pgd was expected, given {attack}")
    most = checks.number("high", high, above=0)
    checks.count("rounds", rounds)
    batch = checks.images("images", images, channels=model.input_shape[2])
    radii = np.full(len(batch), most, np.float32)
    held, fooled = np.zeros(len(batch)), np.full(len(batch), np.inf)
    for _ in range(1 + rounds):
        result = attack(model, batch, labels, eps=radii)
        # What was found may be nearer than it had to be.
        nearer = np.minimum(result.distances, radii)
        wrong = (result.clean == result.labels) == result.targeted
        fooled = np.where(result.success, np.minimum(fooled, nearer), fooled)
        fooled = np.where(wrong, 0, fooled)
        held = np.where(result.success, np.minimum(held, fooled), radii)
        open_ = np.isfinite(fooled)
        radii = np.where(open_, (held + np.where(open_, fooled, 0)) / 2, most).astype(np.float32)
    return fooled
