"""One grammar for all functions: the same arguments, in the same order, with the same defaults."""

from __future__ import annotations

import inspect
import typing

import pytest

import rvis
from rvis import attacks, attribution, clip, concepts, evolve, style, synthesis

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
    attacks.certify: "model images labels",
    attacks.mi_fgsm: "model images labels",
    attacks.hop_skip_jump: "model images labels",
    attacks.fab: "model images labels",
    attacks.fmn: "model images labels",
    attacks.ddn: "model images labels",
    attacks.autoattack: "model images labels",
    attacks.universal: "model images labels",
    attacks.patch: "model images labels",
    attacks.deepfool: "model images labels",
    attacks.carlini_wagner: "model images labels",
    attacks.lbfgs: "model images labels",
    attacks.robustness: "model images labels",
    attacks.fool: "model target",
    evolve.map_elites: "model target",
    attribution.gradient: "model images target",
    attribution.integrated_gradients: "model images target",
    attribution.smoothgrad: "model images target",
    attribution.expected_gradients: "model images target",
    attribution.guided_integrated_gradients: "model images target",
    attribution.blur_integrated_gradients: "model images target",
    attribution.deep_lift: "model images target",
    attribution.full_gradient: "model images target",
    attribution.lrp: "model images target",
    attribution.attention_rollout: "model images target",
    attribution.attention_gradient: "model images target",
    attribution.grad_cam: "model images target",
    attribution.grad_cam_plus: "model images target",
    attribution.xgrad_cam: "model images target",
    attribution.hires_cam: "model images target",
    attribution.layer_cam: "model images target",
    attribution.eigen_cam: "model images target",
    attribution.score_cam: "model images target",
    attribution.ablation_cam: "model images target",
    attribution.xrai: "model images target",
    attribution.kernel_shap: "model images target",
    attribution.lime: "model images target",
    attribution.shapley_interactions: "model images target",
    attribution.occlusion: "model images target",
    attribution.rise: "model images target",
    attribution.shapley: "model images target",
    attribution.shapley_sampling: "model images target",
    concepts.train_sae: "model layer dataset",
    concepts.fit: "model layer dataset k",
    concepts.relevance: "model images target concepts",
    concepts.tcav: "model images target layer examples random",
}
ALWAYS = {"key", "chunk", "checkpoint", "callback", "progress"}
# What some lack, and why.
NOTHING_RANDOM = {"key"}
ONE_STEP = {"key", "checkpoint", "callback"}
ONE_EXAMPLE = {"chunk"}
ALL_AT_ONCE = {"key", "callback"}
LACKS = {
    synthesis.inpaint: NOTHING_RANDOM,
    synthesis.translate: NOTHING_RANDOM,
    synthesis.super_resolve: NOTHING_RANDOM,
    attribution.integrated_gradients: NOTHING_RANDOM,
    attribution.occlusion: NOTHING_RANDOM,
    attribution.gradient: ONE_STEP,
    attribution.guided_integrated_gradients: NOTHING_RANDOM,
    attribution.blur_integrated_gradients: NOTHING_RANDOM,
    attribution.deep_lift: NOTHING_RANDOM,
    attribution.shapley: ALL_AT_ONCE,
    attribution.score_cam: ALL_AT_ONCE,
    attribution.ablation_cam: ALL_AT_ONCE,
    attribution.shapley_interactions: ALL_AT_ONCE,
    attribution.kernel_shap: {"callback"},
    attribution.lime: {"callback"},
    **dict.fromkeys(
        (
            attribution.full_gradient,
            attribution.lrp,
            attribution.attention_rollout,
            attribution.attention_gradient,
            attribution.grad_cam,
            attribution.grad_cam_plus,
            attribution.xgrad_cam,
            attribution.hires_cam,
            attribution.layer_cam,
            attribution.eigen_cam,
            attribution.xrai,
        ),
        ONE_STEP,
    ),
    evolve.map_elites: ONE_EXAMPLE,
    attacks.universal: ONE_EXAMPLE,
    attacks.patch: ONE_EXAMPLE,
    concepts.fit: {"checkpoint", "callback"},
    concepts.relevance: ONE_STEP,
    concepts.tcav: {"checkpoint", "callback"},
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
            for options in typing.get_args(hint):
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


# Networks of others become models by the same keywords; a function has none of its own.
ADAPTERS = {
    rvis.from_linen: "module variables",
    rvis.from_nnx: "module",
    rvis.from_equinox: "module",
    rvis.from_keras: "module",
    rvis.from_function: "function params input_shape",
}
ADAPTED = ("classes", "mean", "std", "name", "call", "output", "kind", "grid")


@pytest.mark.parametrize(("function", "first"), ADAPTERS.items(), ids=map(name, ADAPTERS))
def test_an_adapter_follows_the_grammar(function, first):
    parameters = inspect.signature(function).parameters
    positional = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == first.split() and "input_shape" in parameters
    common = [keyword for keyword in ADAPTED if "call" not in keyword or "module" in first]
    assert [keyword for keyword in parameters if keyword in ADAPTED] == common
    for keyword in set(common) - {"name"}:
        like = inspect.signature(rvis.from_linen).parameters[keyword].default
        assert parameters[keyword].default == like


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
    """The functions that a module offers, and the modules that it does."""
    for word in getattr(module, "__all__", ()):
        thing = getattr(module, word)
        if inspect.ismodule(thing):
            yield from public(thing)
        elif inspect.isfunction(thing):
            yield thing


EVERY = sorted({*public(rvis), *LONG}, key=name)


@pytest.mark.parametrize("function", EVERY, ids=name)
def test_no_public_function_has_a_spelling_of_its_own(function):
    assert not OTHER_SPELLINGS & set(inspect.signature(function).parameters)
