"""AutoAttack: four attacks that differ in kind, one after another, on what still holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from rvis import checks, engine, gate
from rvis.attacks.apgd import plan_apgd
from rvis.attacks.attack import Plan, run_plan
from rvis.attacks.fab import plan_fab
from rvis.attacks.losses import TargetedDLR
from rvis.attacks.request import Options, Request, conclude, prepare, watch
from rvis.attacks.result import AttackResult
from rvis.attacks.rounds import repeated
from rvis.attacks.square import plan_square
from rvis.attacks.verify import Check, Report, circumstances
from rvis.types import ArrayLike, KeyLike, Model, on_device

_RANDOM = "same outputs"
_TARGETS = {"linf": 9, "l2": 9, "l1": 5}


@dataclasses.dataclass(frozen=True, eq=False)
class AutoAttackResult(AttackResult):
    """What is left of a network's accuracy after each attack.

    Attributes:
      attacks: the attacks' names in their order.
      fooled_by: (n,) which of them fooled the model first; −1 where it was wrong to begin with, and
        their number where it held.
      report: what casts doubt on the figures, or does not; see `rvis.attacks.Report`.
    """

    attacks: tuple[str, ...] = ()
    fooled_by: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
    report: Report = dataclasses.field(default_factory=lambda: Report(()))

    @property
    def accuracies(self) -> dict[str, float]:
        """{"clean": …, then each attack: the share of images that hold after it}."""
        by = np.asarray(self.fooled_by)
        names = ("clean", *self.attacks)
        return {name: float((by >= i).mean()) for i, name in enumerate(names)}

    def table(self) -> str:
        """The same as lines of text, with the report."""
        lines = [f"{name:10} {accuracy:7.2%}" for name, accuracy in self.accuracies.items()]
        return "\n".join([*lines, str(self.report)])

    def told(self) -> dict[str, Any]:
        """See `AttackResult.told`."""
        more = {"fooled_by": self.fooled_by, "accuracies": self.accuracies}
        return super().told() | more | {"warnings": list(self.report.failed)}


def _targeted(request: Request, norm: str) -> np.ndarray:
    """(k, n) the classes that the model takes the images for next to their labels."""
    logits = request.logits.copy()
    logits[np.arange(len(logits)), request.labels] = -np.inf
    count = min(_TARGETS[norm], request.outputs - 1)
    return np.argsort(-logits, 1, kind="stable")[:, :count].T.astype(np.int32)


def _apgd_t(request: Request, *, steps: int) -> Plan:
    labels = on_device(request.labels)
    losses = [TargetedDLR(labels, on_device(target)) for target in _targeted(request, request.norm)]
    return repeated(plan_apgd(request, steps=steps, loss=losses[0]), losses)


def _fab_t(request: Request, *, steps: int) -> Plan:
    return plan_fab(request, steps=steps, targets=_targeted(request, "linf"))


def _repeated(request: Request, *, steps: int, loss: str, restarts: int) -> Plan:
    return repeated(plan_apgd(request, steps=steps, loss=loss), restarts)


Planned = Callable[..., Plan]


def _attacks(version: str, norm: str) -> dict[str, tuple[Planned, int]]:
    """The attacks of a version in their order: how each is planned, and its steps."""
    often = 5 if norm == "l1" or version == "plus" else 1
    ce, dlr = (partial(_repeated, loss=loss, restarts=often) for loss in ("ce", "dlr"))
    square = partial(plan_square, rescale_schedule=False)
    chosen: dict[str, Planned]
    if version == "rand":
        chosen = {"apgd-ce": plan_apgd, "apgd-dlr": partial(plan_apgd, loss="dlr")}
    elif version == "standard":
        chosen = {"apgd-ce": ce, "apgd-t": _apgd_t, "fab-t": _fab_t, "square": square}
    else:
        fab = partial(plan_fab, restarts=5)
        chosen = {"apgd-ce": ce, "apgd-dlr": dlr, "fab": fab}
        chosen |= {"square": square, "apgd-t": _apgd_t, "fab-t": _fab_t}
    return {name: (plan, 5000 if name == "square" else 100) for name, plan in chosen.items()}


@gate.public
def autoattack(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    norm: str = "linf",
    eps: Any,
    version: str = "standard",
    key: KeyLike = 0,
    **options: Unpack[Options],
) -> AutoAttackResult:
    """Accuracy under the attacks by which robust networks are ranked, with nothing to choose.

    "standard" is APGD on the cross-entropy, APGD towards each of the nine next likely classes, FAB
    towards the same, and the Square attack with 5,000 queries; "plus" has APGD on the DLR loss and
    untargeted FAB too, and five restarts; "rand", for networks that draw (see `pgd`), APGD on both
    losses, each step a mean over 20 draws. Steps, restarts, order and stopping are the official
    ones: 100 steps, an image leaves with its first success, and an attack sees those alone that
    hold. In L1, APGD has five restarts and five target classes.

    Args, raises as `pgd`, but for:
      eps: the radius.
      version: "standard", "plus" or "rand".
      callback: called by each attack in its turn, with its own steps.

    Returns:
      An `AutoAttackResult`: an AttackResult with the accuracy after each attack, and a `report` on
      the network: random or normalised outputs, gradients that are zero, and whether the random
      search fools what gradients do not. `iterations` are those of the attack that fooled.

    Raises:
      ValueError: also naming `model`, if it has fewer than four classes.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attacks
      >>> def apply(params, images, *, tap=lambda name, x: x, relu=None):
      ...     return tap("out", images.reshape(len(images), -1) @ params)
      >>> weights = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
      >>> model = rvis.Model(weights, apply, layers=("out",), input_shape=(4, 4, 1))
      >>> images = np.random.default_rng(1).random((2, 4, 4, 1)).astype(np.float32)
      >>> found = attacks.autoattack(model, images, model(images).argmax(1), eps=0.5)
      >>> list(found.accuracies), found.accuracy
      (['clean', 'apgd-ce', 'apgd-t', 'fab-t', 'square'], 0.0)

    Reference: Croce & Hein 2020, Reliable evaluation of adversarial robustness with an ensemble of
      diverse parameter-free attacks, section 5; fra31/auto-attack, `autoattack.py`.
    """
    checks.choice("version", version, ("standard", "plus", "rand"))
    request = prepare(model, images, labels, norm=norm, eps=eps, key=key)
    if request.outputs < 4:
        raise ValueError(f"model: at least four logits were expected, given {request.outputs}")
    chosen = _attacks(version, norm)
    rest: dict[str, Any] = {
        name: options[name] for name in ("chunk", "progress") if name in options
    }  # type: ignore[literal-required]

    def attack(number: int, carry: tuple[Any, ...], folder: Path | None) -> tuple[Any, ...]:
        found, by, since = map(np.array, carry)
        held = np.flatnonzero(by > number)
        name, (planned, steps) = list(chosen.items())[number]
        if held.size:
            some = request.rows(held)
            again = run_plan(
                planned(some, steps=steps).stopping(),
                some,
                eot=20 if version == "rand" else 1,
                rows=held,
                checkpoint=folder,
                callback=watch(
                    request,
                    options.get("callback"),
                    lambda best: best.image,
                    rows=held,
                    images=found,
                ),
                label=name,
                **rest,
            )
            fooled = held[again.success]
            found[fooled], by[fooled] = again.images[again.success], number
            since[fooled] = again.since[again.success]
        return found, by, since

    begun = np.where(request.solved, -1, len(chosen)).astype(np.int32)
    found, by, since = engine.in_stages(
        [partial(attack, number) for number in range(len(chosen))],
        (request.images, begun, np.where(request.solved, 0, -1)),
        about=(
            request.images,
            request.labels,
            request.eps,
            request.keys(),
            model.unnamed(),
            norm,
            version,
        ),
        checkpoint=options.get("checkpoint"),
    )
    # Judged by the program that reports it, as every attack's success is.
    plain = conclude(
        request, found, method="autoattack", iterations=since, eps=request.eps, version=version
    )
    by = np.where(plain.success | (by < 0), by, len(chosen))
    told = [check for check in circumstances(request) if version != "rand" or check.name != _RANDOM]
    told += [_unaided(list(chosen), by)] if "square" in chosen else []
    fields = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    by = by[0] if request.single else by
    return AutoAttackResult(
        **fields, attacks=tuple(chosen), fooled_by=by, report=Report(tuple(told))
    )


def _unaided(names: list[str], by: np.ndarray) -> Check:
    """Whether the random search fools what attacks by gradients before it do not."""
    alone = float((by == names.index("square")).mean())
    return Check(
        "black box",
        alone <= 0.002,
        f"a random search fools {alone:.1%} of the images that gradients did not",
        "gradient masking: more queries and restarts of `square`, or an attack made for this "
        "network, would find more",
    )
