"""One grammar for all functions: the same arguments, in the same order, with the same defaults."""

from __future__ import annotations

import inspect
import typing

import pytest

import rvis
from rvis import analysis, attacks, attribution, clip, concepts, evolve, style, synthesis, training
from rvis.analysis import metrics

# What functions share, in their order, with the defaults that are the same everywhere.
SHARED = {
    "key": 0,
    "steps": None,
    "samples": None,
    "optimizer": None,
    "chunk": None,
    "checkpoint": None,
    "snapshots": (),
    "callback": None,
    "progress": True,
}
FREE = ("steps", "samples", "optimizer")  # every method has its own default

# Every long function, and what stands before the keywords.
LONG = {
    rvis.visualize: "model target",
    rvis.deepdream: "model images target",
    rvis.invert: "model images layer",
    rvis.match: "model source target layer",
    style.texture: "model image",
    style.transfer: "model content style",
    clip.invert: "clip texts",
    synthesis.generate: "model target",
    synthesis.inpaint: "model images mask target",
    synthesis.translate: "model images target",
    synthesis.super_resolve: "model images factor target",
    attacks.pgd: "model images labels",
    attacks.apgd: "model images labels",
    attacks.bim: "model images labels",
    attacks.fgsm: "model images labels",
    attacks.square: "model images labels",
    attacks.deepfool: "model images labels",
    attacks.carlini_wagner: "model images labels",
    attacks.lbfgs: "model images labels",
    attacks.robustness: "model images labels",
    attacks.fool: "model target",
    evolve.map_elites: "model target",
    attribution.gradient: "model images target",
    attribution.integrated_gradients: "model images target",
    attribution.smoothgrad: "model images target",
    attribution.grad_cam: "model images target",
    attribution.occlusion: "model images target",
    attribution.rise: "model images target",
    attribution.shapley: "model images target",
    attribution.shapley_sampling: "model images target",
}
ALWAYS = {"key", "chunk", "checkpoint", "callback", "progress"}
# What some lack, and why.
NOTHING_RANDOM = {"key"}
ONE_STEP = {"key", "checkpoint", "callback"}
ONE_EXAMPLE = {"chunk"}
LACKS = {
    synthesis.inpaint: NOTHING_RANDOM,
    synthesis.translate: NOTHING_RANDOM,
    synthesis.super_resolve: NOTHING_RANDOM,
    attribution.integrated_gradients: NOTHING_RANDOM,
    attribution.occlusion: NOTHING_RANDOM,
    attribution.gradient: ONE_STEP,
    attribution.grad_cam: ONE_STEP,
    attribution.shapley: {"key", "callback"},
    evolve.map_elites: ONE_EXAMPLE,
}


def name(function):
    return f"{function.__module__.removeprefix('rvis.')}.{function.__name__}"


def keywords(function):
    """Keyword-only arguments in their order, {name: default}; those of shared options come last."""
    found = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            found[parameter.name] = parameter.default
        elif parameter.kind is parameter.VAR_KEYWORD:
            hint = typing.get_type_hints(function)[parameter.name]
            (options,) = typing.get_args(hint)
            found |= dict.fromkeys(options.__annotations__, ...)
    return found


@pytest.mark.parametrize(("function", "first"), LONG.items(), ids=map(name, LONG))
def test_a_long_function_follows_the_grammar(function, first):
    parameters = inspect.signature(function).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == first.split()
    found = keywords(function)
    assert ALWAYS - set(found) == LACKS.get(function, set())
    # What a function adds to the options that it shares with others stands before them.
    if ... in found.values():
        found = {keyword: default for keyword, default in found.items() if default is ...}
    shared = [keyword for keyword in found if keyword in SHARED]
    assert shared == [keyword for keyword in SHARED if keyword in shared]
    # What is special comes first.
    assert list(found)[len(found) - len(shared) :] == shared
    for keyword in shared:
        if keyword not in FREE and found[keyword] is not ...:
            assert found[keyword] == SHARED[keyword], keyword


OTHER_SPELLINGS = {
    "seed",
    "rng",
    "batch",
    "batch_width",
    "verbose",
    "walks",
    "rounds",
    "targeted",
    "target_class",
    "photo",
    "n_samples",
}


def public(module):
    for function in vars(module).values():
        if inspect.isfunction(function) and function.__name__ in getattr(module, "__all__", ()):
            yield function


MODULES = (
    attacks,
    attribution,
    clip,
    concepts,
    evolve,
    style,
    synthesis,
    training,
    metrics,
    analysis,
)
EVERY = sorted({f for m in MODULES for f in public(m)} | set(LONG), key=name)


@pytest.mark.parametrize("function", EVERY, ids=name)
def test_no_public_function_has_a_spelling_of_its_own(function):
    assert not OTHER_SPELLINGS & set(inspect.signature(function).parameters)
