"""Sweeps of ε: accuracy against it for a whole set of images, and the smallest that fools each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rvis import checks, gate
from rvis.attacks.apgd import plan_apgd
from rvis.attacks.attack import Plan, run_plan
from rvis.attacks.fab import plan_fab
from rvis.attacks.gradient import plan_bim, plan_mi_fgsm, plan_pgd
from rvis.attacks.minimum_norm import plan_fmn
from rvis.attacks.request import Callback, prepare, watch
from rvis.attacks.result import NORMS, AttackResult
from rvis.attacks.square import plan_square
from rvis.plotting import figures
from rvis.results import describe, wilson, write
from rvis.types import ArrayLike, KeyLike, Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Registered(NamedTuple):
    """An attack that has a name: its plan, steps and norms, and if it has no loss to choose."""

    plan: Callable[..., Plan]
    steps: int
    norms: tuple[str, ...] = NORMS
    lossless: bool = False


ATTACKS: dict[str, Registered] = {
    "bim": Registered(plan_bim, 10),
    "pgd": Registered(plan_pgd, 40),
    "apgd": Registered(plan_apgd, 100),
    "mi_fgsm": Registered(plan_mi_fgsm, 10),
    "fab": Registered(plan_fab, 100, lossless=True),
    "fmn": Registered(plan_fmn, 100, lossless=True),
    "square": Registered(plan_square, 5000),
}
"""The attacks that `robustness` knows by name."""


_TITLES = {"linf": "L∞", "l2": "L2", "l1": "L1"}


@dataclasses.dataclass(frozen=True, eq=False)
class RobustnessCurve:
    """How many images a network takes for what they are, against the radius of an attack.

    Attributes:
      epsilons: (k,) the radii in rising order.
      accuracies: (k,) the share of images that were not fooled at each.
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
    def low(self) -> np.ndarray:
        """(k,) where the accuracies' 95 % intervals over draws of images (Wilson's) begin."""
        return self._interval()[0]

    @property
    def high(self) -> np.ndarray:
        """(k,) where they end."""
        return self._interval()[1]

    def _interval(self) -> tuple[np.ndarray, np.ndarray]:
        return wilson(self.accuracies, len(self.smallest))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Accuracy against ε, with the 95 % intervals as a band.

        Args:
          ax: the axes to draw into, where another curve of the same norm may be; those of a new
            figure by default.

        Returns:
          The axes.

        Raises:
          ValueError: naming `ax`, which holds a curve of another norm.
          ImportError: naming the extra, where matplotlib is not installed.
        """
        ax = figures.axes(ax)
        label = f"ε ({_TITLES[self.norm]}, pixels in [0, 1])"
        if ax.get_xlabel().startswith("ε (") and ax.get_xlabel() != label:
            raise ValueError(f"ax: a curve in {self.norm!r} was expected, it holds others")
        name = f"{self.model}, {self.attack}, {len(self.smallest)} images"
        (line,) = ax.plot(self.epsilons, 100 * self.accuracies, "o-", ms=4, label=name)
        band = 100 * self.low, 100 * self.high
        ax.fill_between(self.epsilons, *band, color=line.get_color(), alpha=0.15, lw=0)
        ax.set(xlabel=label, ylabel="accuracy under attack (%)", ylim=(0, 100))
        ax.set_xlim(left=0)
        ax.legend()
        return ax

    def save(self, folder: str | Path) -> Path:
        """Writes the arrays, a JSON card and the plot into `folder`; see `rvis.results.write`.

        Raises:
          OSError: naming the path, on a full disk or without permission.

        Example:
          >>> import tempfile, numpy as np
          >>> from rvis.attacks import RobustnessCurve
          >>> numbers = np.array([0.1, 0.2]), np.array([0.5, 0.0]), np.array([0.1, 0.2])
          >>> curve = RobustnessCurve(*numbers, np.array([3, 1]), 1.0, "linf", "pgd", "mine")
          >>> with tempfile.TemporaryDirectory() as folder:
          ...     sorted(path.name for path in curve.save(folder).iterdir())
          ['arrays.npz', 'card.json', 'plot.png']
        """
        names = ("epsilons", "accuracies", "low", "high", "smallest", "iterations")
        return write(
            folder,
            arrays={name: getattr(self, name) for name in names},
            card={
                "model": self.model,
                "attack": self.attack,
                "norm": self.norm,
                "images": len(self.smallest),
                "clean": self.clean,
                "epsilons": self.epsilons,
                "accuracies": self.accuracies,
                "low": self.low,
                "high": self.high,
                "smallest": [None if math.isinf(e) else e for e in self.smallest.tolist()],
                "iterations": self.iterations,
                "config": dict(self.config),
            },
            plot=self.plot,
        )


@gate.public
def robustness(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    epsilons: Sequence[float],
    norm: str = "linf",
    attack: str = "pgd",
    loss: str | None = None,
    target: Any = None,
    key: KeyLike = 0,
    steps: int | None = None,
    chunk: int | None = None,
    checkpoint: str | Path | None = None,
    callback: Callback | None = None,
    progress: bool = True,
) -> RobustnessCurve:
    """Accuracy under attack against ε.

    The accuracy at an ε is that of the attack at this radius by itself, whichever others are asked
    for. All radii share one program, and an image leaves an attack as soon as it is fooled. The
    curve rises where an attack does worse in a larger ball, which `verify` has more to say about.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      labels: the true classes, by number or name: one, or (n,).
      epsilons: radii of at least 0, in units of the [0, 1] image, in any order.
      norm: "linf", "l2" or "l1", as the attack knows.
      attack: a name of `rvis.attacks.ATTACKS`: "pgd", "apgd", "bim", "mi_fgsm", "fab", "fmn" or
        "square".
      loss: "ce", "dlr" or "margin"; the attack's own by default.
      target: the classes to reach, see `pgd`.
      key: an int seed or a typed key, for the attacks' chances.
      steps: of each attack; by default 40, 100, 10, 10, 100, 100 and 5000.
      chunk: images at once; bounds memory, never changes results.
      checkpoint: a folder in which an interrupted run leaves what it has, and from which the same
        call goes on. It is removed when the run has ended.
      callback: as that of `pgd`, of the images at each radius, (k·n, H, W, C).
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
    registered = ATTACKS[checks.choice("attack", attack, ATTACKS)]
    if isinstance(epsilons, (str, bytes)) or np.ndim(epsilons) != 1:
        raise TypeError(f"epsilons: a list of numbers was expected, given {epsilons!r}")
    radii = np.asarray(sorted({checks.number("epsilons", e, low=0) for e in epsilons}))
    if not radii.size:
        raise ValueError("epsilons: at least one number was expected, given none")
    steps = registered.steps if steps is None else checks.count("steps", steps)
    request = prepare(
        model, images, labels, norm=norm, target=target, key=key, norms=registered.norms
    )
    if loss is not None and registered.lossless:
        raise ValueError(
            f"loss: none was expected for {attack!r}, which has its own, given {loss!r}"
        )
    options: dict[str, Any] = {} if loss is None else {"loss": loss}
    registered.plan(request, steps=steps, **options)  # refuses what is wrong before the model runs
    count = len(request.images)
    # What is fooled already needs no attack, and without a radius there is none.
    number, rows = np.nonzero((radii > 0)[:, None] & ~request.solved)
    fooled = np.broadcast_to(request.solved, (len(radii), count)).copy()
    since = np.where(fooled, 0, -1)
    if rows.size:
        radius = np.minimum(radii[number].astype(np.float32), request.eps[rows])
        asked = dataclasses.replace(request.rows(rows), eps=radius, single=False)
        plan = registered.plan(asked, steps=steps, **options).stopping()
        found = run_plan(
            plan,
            asked,
            rows=rows,
            chunk=chunk,
            checkpoint=checkpoint,
            callback=watch(asked, callback, lambda best: best.image),
            progress=progress,
            label=attack,
        )
        fooled[number, rows], since[number, rows] = found.success, found.since
    config = describe(
        function="robustness",
        model=model.name,
        attack=attack,
        norm=norm,
        epsilons=radii,
        steps=steps,
        loss=loss,
        target=request.target,
        key=key,
        images=request.images,
        labels=request.labels,
    )
    first = np.where(fooled.any(0), fooled.argmax(0), len(radii))
    return RobustnessCurve(
        radii,
        1 - fooled.mean(1),
        np.append(radii, np.inf)[first],
        np.where(fooled.any(0), since[np.minimum(first, len(radii) - 1), np.arange(count)], -1),
        float(1 - request.solved.mean()),
        norm,
        attack,
        model.name,
        config,
    )


@gate.public
def smallest_epsilon(
    model: Model,
    attack: Callable[..., AttackResult],
    images: ArrayLike,
    labels: Any,
    *,
    high: float,
    binary_search_steps: int = 10,
    **options: Any,
) -> np.ndarray:
    """The smallest radius at which an attack fools the model, for each image, by bisection.

    All images are attacked together, each at its own radius, so that the attack compiles once.

    Args:
      model: any model.
      attack: `attack(model, images, labels, eps=radii, **options)` with radii (n,) gives an
        `AttackResult`, such as `rvis.attacks.pgd`.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      labels: the true classes, as the attack takes them.
      high: the largest radius to try, in the attack's norm.
      binary_search_steps: attacks after the first; each halves the interval.
      **options: handed on to the attack, such as `norm="l2", steps=20`.

    Returns:
      (n,) float64, radii at which the attack did succeed, at most high/2^binary_search_steps above
      one at which it did not; 0 where the model is wrong to begin with, inf where the attack failed
      at `high`. Of one image (H, W, C) a number.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attacks
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((1, 28, 28, 1), 0.5, np.float32)
      >>> attacks.smallest_epsilon(model, attacks.fgsm, grey, 3, high=0.5).shape
      (1,)
    """
    if not callable(attack):
        raise TypeError(f"attack: a function such as rvis.attacks.pgd was expected, given {attack}")
    most = checks.number("high", high, above=0)
    batch = np.asarray(checks.images("images", images, channels=model.input_shape[2]))
    radii = np.full(len(batch), most, np.float32)
    held, fooled = np.zeros(len(batch)), np.full(len(batch), np.inf)
    for _ in range(1 + binary_search_steps):
        result = attack(model, batch, labels, eps=radii, **options)
        # What was found may be nearer than it had to be.
        nearer = np.minimum(result.distances, radii)
        fooled = np.where(result.success, np.minimum(fooled, nearer), fooled)
        fooled = np.where(result.solved, 0, fooled)
        held = np.where(result.success, np.minimum(held, fooled), radii)
        open_ = np.isfinite(fooled)
        radii = np.where(open_, (held + np.where(open_, fooled, 0)) / 2, most).astype(np.float32)
    return fooled.reshape(np.shape(images)[:-3])
