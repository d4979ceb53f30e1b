"""Which functions are called, rightly and with one wrong argument, and what comes of it."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import os
import re
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

import rvis
from rvis import (
    analysis,
    concepts,
    data,
    gate,
    images,
    optimizers,
    plotting,
    post_step,
    projections,
    regularizers,
    training,
    transforms,
)
from scripts.fuzz.values import FAIR, UNKNOWN, WRONG, kind
from scripts.fuzz.world import QUICK, own, world

SECONDS = 10.0

MORE: dict[str, Callable[..., Any]] = {
    f"{module.__name__.removeprefix('rvis.')}.{name}": getattr(module, name)
    for module, names in {
        optimizers: "adam nadam sgd steepest gain",
        post_step: "blur decay small_norm small_contribution yosinski",
        projections: "LinfBall L2Ball L1Ball",
        regularizers: "alpha_norm blur l1 opacity total_variation distance",
        transforms: "Jitter Noise Pad RandomCrop Roll Rotate Scale",
        images: "Pixel Pyramid Fourier MACO CPPN",
        training: "Adversary Recipe",
        data: "Dataset",
        analysis.neighbours: "nearest",
        analysis.patches: "top_activations",
        analysis.deconv: "reconstruct plates centred first_layer_filters",
        analysis.representations: "penultimate encode distances relative_errors psnr ssim spread",
        concepts.groups: "factorize coloured",
        concepts.factors: "nmf",
        plotting.films: "film",
        images.statistics: "load",
    }.items()
    for name in names.split()
}
"""What is public and no function of a module's `__all__`."""

LEFT = {
    **dict.fromkeys(
        ("projections.LinfBall.centre", "projections.L2Ball.centre", "projections.L1Ball.centre"),
        "a leaf, where JAX puts what it likes while it takes a pytree apart",
    ),
    "from_equinox.state": "what it is, the module knows",
    "engine": "what algorithms are built of: arguments are other algorithms'",
    "objectives.check": "it is called by functions that are tried, with their arguments",
    "objectives.target": "likewise",
    "transforms.apply": "likewise",
    "transforms.draws": "likewise",
    "transforms.frame": "likewise",
    "list_models": "it takes nothing",
    "clip.list_clips": "it takes nothing",
}
"""What is not tried, and why."""

PACKAGES = {
    "from_equinox": "equinox",
    "from_keras": "keras",
    "clip.byte_pairs": "tokenizers",
    "clip.read_byte_pairs": "tokenizers",
}
"""What some need, without which they are left out."""


class Attempt(NamedTuple):
    """A call with one wrong argument."""

    function: str
    argument: str
    value: str


class Verdict(NamedTuple):
    """One call, and what came of it: "refused" and "fair" are right."""

    function: str
    argument: str
    value: str
    verdict: str
    words: str


def _public(module: types.ModuleType, path: str = "") -> Iterator[tuple[str, Callable[..., Any]]]:
    for word in getattr(module, "__all__", ()):
        thing = getattr(module, word)
        if inspect.ismodule(thing):
            yield from _public(thing, f"{path}{word}.")
        elif inspect.isfunction(thing):
            yield path + word, thing


@functools.cache
def functions() -> dict[str, Callable[..., Any]]:
    """All that is public, by its shortest path from `rvis`."""
    found: dict[Any, str] = {}
    for title, function in sorted(_public(rvis), key=lambda pair: (pair[0].count("."), pair[0])):
        if not any(f"{title}.".startswith(f"{left}.") for left in LEFT):
            found.setdefault(function, title)
    every = {title: function for function, title in found.items()} | MORE
    absent = {title for title, name in PACKAGES.items() if not importlib.util.find_spec(name)}
    return {title: function for title, function in every.items() if title not in absent}


@functools.cache
def parameters(function: Callable[..., Any]) -> dict[str, bool]:
    """{argument: whether it may be None}, those in shared options too."""
    plain = inspect.signature(function).parameters
    arguments = {}
    for name, said in gate.said_of(function).items():
        parameter = plain.get(name)
        if name[0] != "_" and (parameter is None or parameter.kind not in _MANY):
            arguments[name] = "None" in said or (
                parameter is not None and parameter.default is None
            )
    return arguments


_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def right(title: str) -> dict[str, Any]:
    """The arguments of a right call."""
    given, function = own().get(title, {}), functions()[title]
    found = {}
    for name in parameters(function):
        parameter = inspect.signature(function).parameters.get(name)
        if name in given:
            found[name] = given[name]
        elif name in QUICK:
            found[name] = QUICK[name]
        elif parameter is not None and parameter.default is parameter.empty:
            found[name] = world()[name]
    slow = ("model", "clip", "clips", "module")
    return {
        name: value() if name in slow and not isinstance(value, rvis.Model) else value
        for name, value in found.items()
    }


def attempts() -> Iterator[Attempt]:
    """Every wrong call there is."""
    for title, function in functions().items():
        for argument, optional in parameters(function).items():
            if f"{title}.{argument}" in LEFT:
                continue
            for name, value in WRONG[kind(title, argument)].items():
                if value is not None or not optional:
                    yield Attempt(title, argument, name)


def is_fair(attempt: Attempt) -> bool:
    """Whether it may be taken."""
    return bool({(attempt.argument, attempt.value), tuple(attempt)} & set(FAIR))


class _Lowered(BaseException):
    """Something is about to be compiled."""


_watched = False


def _listen(event: str, duration_secs: float, **_: str | int) -> None:
    if _watched and event == "/jax/core/compile/jaxpr_to_mlir_module_duration":
        raise _Lowered


jax.monitoring.register_event_duration_secs_listener(_listen)


@contextlib.contextmanager
def _nothing_compiled() -> Iterator[None]:
    """Raises where JAX lowers a program, so that a call which ought to be refused costs little."""
    global _watched
    _watched = True
    try:
        yield
    finally:
        _watched = False


def tried(attempt: Attempt) -> Verdict:
    """What a call with one wrong argument comes to."""
    title, argument, value = attempt
    arguments = right(title) | {argument: WRONG[kind(title, argument)][value]}
    fair, words, begun = is_fair(attempt), "", time.monotonic()
    try:
        with contextlib.nullcontext() if fair else _nothing_compiled():
            functions()[title](**arguments)
        verdict = "fair" if fair else "taken"
    except (TypeError, ValueError, OSError) as error:
        words = str(error).splitlines()[0] if str(error) else ""
        named = re.match(r"(?:\[Errno \d+\] )?([a-z_0-9, ]+): ", words)
        verdict = f"from inside ({type(error).__name__})"
        if named:
            own_name = argument in named[1].split(", ")
            verdict = "refused" if own_name else "fair" if fair else "of another name"
    except _Lowered:
        verdict = "compiled"
    except Exception as error:
        verdict, words = f"from inside ({type(error).__name__})", str(error)[:200]
    slow = not fair and time.monotonic() - begun > SECONDS
    return Verdict(*attempt, "slow" if slow else verdict, words)


def called(title: str) -> Verdict:
    """What a right call comes to."""
    try:
        result = functions()[title](**right(title))
    except Exception as error:
        # What is to be read is not there, which is told.
        told = "refused" if "nowhere" in str(error) else f"right, {type(error).__name__}"
        return Verdict(title, "-", "-", told, str(error)[:200])
    leaves = jax.tree.leaves(getattr(result, "__dict__", result))
    arrays = [np.asarray(leaf) for leaf in leaves if isinstance(leaf, (np.ndarray, jax.Array))]
    finite = title in UNKNOWN or all(
        np.isfinite(a).all() for a in arrays if np.issubdtype(a.dtype, np.inexact)
    )
    return Verdict(title, "-", "-", "right" if finite else "right, not finite", "")


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """A folder of its own, and nothing printed: a wrong path may be written to."""
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = os.getcwd()
        os.chdir(place)
        for split in ("train", "test"):
            os.makedirs(f"pictures/{split}/ant")
            Image.new("RGB", (8, 8)).save(f"pictures/{split}/ant/0.png")
        try:
            with contextlib.redirect_stdout(None):
                yield
        finally:
            os.chdir(before)
