"""What is kept of an array, and how far another is from it."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np

PATH = pathlib.Path(__file__).with_name("expected.json")
SAMPLES = 24


def load() -> dict[str, dict[str, dict[str, Any]]]:
    return json.loads(PATH.read_text()) if PATH.exists() else {}


def save(expected: dict[str, dict[str, dict[str, Any]]]) -> None:
    """One line an array, so that a difference of two versions can be read."""
    calls = []
    for call, arrays in sorted(expected.items()):
        rows = [f"  {json.dumps(name)}: {json.dumps(kept)}" for name, kept in arrays.items()]
        calls.append(f"{json.dumps(call)}: {{\n" + ",\n".join(rows) + "\n}")
    PATH.write_text("{\n" + ",\n".join(calls) + "\n}\n")


def summary(array: Any) -> dict[str, Any]:
    """Shape, dtype, and mean, norm and evenly spaced values of numbers; words in full."""
    array = np.asarray(array)
    if array.dtype.kind in "OUS":
        return {"shape": list(array.shape), "dtype": "str", "values": [str(x) for x in array.flat]}
    flat = array.astype(np.float64).ravel()
    finite = flat[np.isfinite(flat)]
    places = np.unique(np.linspace(0, max(flat.size - 1, 0), SAMPLES).round().astype(int))
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "mean": _short(finite.mean() if finite.size else 0.0),
        "norm": _short(np.linalg.norm(finite)),
        "largest": _short(np.abs(finite).max(initial=0.0)),
        "values": [_short(x) for x in (flat[places] if flat.size else flat)],
    }


def differences(
    found: Any, kept: dict[str, Any], rtol: float, atol: float, rest: bool = False
) -> list[str]:
    """What is wrong with an array, in words; nothing where it is as kept.

    A `rest` is what sums of the size of one leave of each other: it has rounding's room of those.
    """
    new = summary(found)
    wrong = [
        f"{what} {new[what]}, kept {kept[what]}"
        for what in ("shape", "dtype")
        if new[what] != kept[what]
    ]
    if wrong:
        return wrong
    if kept["dtype"] == "str":
        return (
            [] if new["values"] == kept["values"] else [f"{new['values']}, kept {kept['values']}"]
        )
    floor = max(atol * (1.0 if rest else min(1.0, kept["largest"])), 1e-12)
    for what in ("mean", "norm", "values"):
        ours, theirs = (np.atleast_1d(np.asarray(d[what], np.float64)) for d in (new, kept))
        close = np.isclose(ours, theirs, rtol=rtol, atol=floor, equal_nan=True)
        if not close.all():
            with np.errstate(invalid="ignore"):
                gap = np.abs(ours - theirs)
                excess = np.nan_to_num(
                    (gap - floor) / np.maximum(np.abs(theirs), 1e-30), nan=np.inf
                )
            worst = int(np.where(close, -np.inf, excess).argmax())
            wrong.append(
                f"{what}: {(~close).sum()} of {close.size} differ, the worst by {gap[worst]:.3g} "
                f"({ours[worst]:.7g}, kept {theirs[worst]:.7g})"
            )
    return wrong


def _short(number: float) -> float:
    return float(f"{number:.7g}")
