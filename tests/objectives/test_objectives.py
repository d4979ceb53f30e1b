"""Objectives against hand-worked activations, their algebra, and what they refuse."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import objectives as o
from tests import toys

X = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
LOGITS = np.array([[1.0, 2.0], [3.0, 5.0]], np.float32)
ACTIVATIONS = {"a": jnp.asarray(X), "d": jnp.asarray(X[:, 0, 0]), "logits": jnp.asarray(LOGITS)}
V = np.array([1.0, -1, 2, 0, 0.5], np.float32)
T = np.random.default_rng(0).standard_normal((2, 2, 5)).astype(np.float32)
COSINE = X @ V / (np.linalg.norm(X, axis=-1) * np.linalg.norm(V))
GRAMS = np.einsum("nhwi,nhwj->nij", X.astype(float), X).reshape(2, -1)
GRAM_COSINE = GRAMS[0] @ GRAMS[1] / np.linalg.norm(GRAMS[0]) / np.linalg.norm(GRAMS[1])


def spread(seen, scale):
    return scale * seen["a"].std() + seen["d"].max()


def unit_of(seen, unit):
    return seen["a"][..., unit].mean()


VALUES = {
    "channel": (o.channel("a", 2), X[..., 2].mean()),
    "channel of a dense layer": (o.channel("d", 4), X[:, 0, 0, 4].mean()),
    "neuron at the centre": (o.neuron("a", 1), X[:, 1, 2, 1].mean()),
    "neuron at a place": (o.neuron("a", 1, (2, 0)), X[:, 2, 0, 1].mean()),
    "neuron of a dense layer": (o.neuron("d", 3), X[:, 0, 0, 3].mean()),
    "layer": (o.layer("a"), (X**2).mean()),
    "direction": (o.direction("a", V), (X @ V).mean()),
    "direction of cosine power 0": (o.direction("a", V, cosine_power=0), (X @ V).mean()),
    "direction of cosine power": (
        o.direction("a", V, cosine_power=2),
        (X @ V * np.maximum(COSINE, 0.1) ** 2).mean(),
    ),
    "direction at a place": (o.direction("a", V, position=(2, 0)), (X[:, 2, 0] @ V).mean()),
    "tensor direction": (o.tensor_direction("a", T), (X[:, :2, 1:3] * T).sum(-1).mean()),
    "tensor direction at a place": (
        o.tensor_direction("a", T, position=(1, 0)),
        (X[:, 1:3, :2] * T).sum(-1).mean(),
    ),
    "direction of a window": (
        o.tensor_direction("a", np.tile(V, (3, 2, 1)), position=(0, 2)),
        (X[:, :, 2:] @ V).mean(),
    ),
    "match": (o.match("d", X[0, 0, 0]), -((X[1, 0, 0] - X[0, 0, 0]) ** 2).sum() / 60),
    "guide": (o.guide("a", np.stack([V, -V])), np.abs(X @ V).mean()),
    "diversity": (o.diversity("a"), -GRAM_COSINE),
    "alignment": (o.alignment("a", decay=4), -((X[1] - X[0]) ** 2).mean() / 4),
    "interpolation": (
        o.interpolate(o.logit(0), o.channel("a", 2)),
        (LOGITS[0, 0] + X[1, ..., 2].mean()) / 2,
    ),
    "interpolation over three": (
        o.interpolate(o.logit(0), o.logit(1), o.channel("a", 2)),
        (LOGITS[0, 0] + X[1, ..., 2].mean()) / 2,
    ),
    "function": (o.function(spread, ("a", "d"), 2.0), 2 * X.std() + X[:, 0, 0].max()),
    "function of an integer": (o.function(unit_of, "a", 2), X[..., 2].mean()),
    "logit": (o.logit(1), 3.5),
    "probability": (o.probability(1), np.log([np.e / (1 + np.e), np.e**2 / (1 + np.e**2)]).mean()),
    "sum": (o.channel("a", 2) + o.logit(0), X[..., 2].mean() + 2),
    "difference": (o.logit(1) - o.logit(0), 1.5),
    "product": (o.logit(0) * o.logit(1), 7.0),
    "product of a sum": ((o.logit(0) + o.logit(1)) * o.logit(0), 11.0),
    "scaled product": (2 * (o.logit(0) * o.logit(1)) - o.logit(0), 12.0),
    "scaled": (3 * o.logit(0) / 2, 3.0),
    "scaled by an array": (jnp.float32(2) * o.logit(0), 4.0),
    "scaled by a NumPy number": (np.float32(2) * o.logit(0), 4.0),
    "built-in sum": (sum([o.logit(0), o.logit(1)]), 5.5),
    "negative": (-o.logit(0), -2.0),
}


# One program instead of one for every operation.
value = jax.jit(lambda objective, seen: objective(seen))


@pytest.mark.parametrize("name", VALUES)
def test_value(name):
    objective, expected = VALUES[name]
    np.testing.assert_allclose(value(objective, ACTIVATIONS), expected, rtol=1e-6)


def test_many_members_are_one_pytree():
    many = o.channel("a", [0, 3]) + 2 * o.direction("a", np.stack([V, -V]))
    assert many.batch_shape == (2,)
    scores = jax.vmap(lambda member: member(ACTIVATIONS))(many.broadcast(2))
    expected = [X[..., 0].mean() + 2 * (X @ V).mean(), X[..., 3].mean() - 2 * (X @ V).mean()]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_a_single_term_serves_every_member():
    many = (o.channel("a", [0, 3]) - o.logit(1)).broadcast(2)
    scores = jax.vmap(lambda member: member(ACTIVATIONS))(many)
    np.testing.assert_allclose(scores, [X[..., 0].mean() - 3.5, X[..., 3].mean() - 3.5])


def test_another_unit_or_weight_has_the_same_structure():
    one, other = 2 * o.channel("a", 1), 7.5 * o.channel("a", 4)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert jax.tree.structure(one) != jax.tree.structure(2 * o.channel("b", 1))


def test_layers_are_those_of_all_terms_once():
    assert (o.channel("a", 0) + o.layer("b") - o.layer("a")).layers == ("a", "b")


MODEL = toys.pointwise()
REFUSED = {
    "misspelt layer": (o.channel("rleu", 0), r"layer: unknown 'rleu'; did you mean 'relu'"),
    "unit too high": (o.channel("relu", 4), r"unit: 0 to 3 of layer 'relu' were expected, given 4"),
    "unit below zero": (o.neuron("relu", -1), r"unit: 0 to 3 .* given -1"),
    "one unit of many": (o.channel("relu", [0, 9]), r"given 9"),
    "class": (o.logit(2), r"unit: 0 to 1 of the logits were expected, given 2"),
    "class of a probability": (o.probability(5), r"unit: 0 to 1 of the logits"),
    "row": (o.neuron("relu", 0, (6, 0)), r"position\[0\] \(row\): 0 to 5 of 'relu'.*given 6"),
    "column": (o.neuron("relu", 0, (0, 8)), r"position\[1\] \(column\): 0 to 7"),
    "place in a dense layer": (o.neuron("pool", 0, (0, 0)), r"position: layer 'pool' has shape"),
    "width": (o.direction("relu", np.ones(3)), r"vector: 4 entries were expected"),
    "weight": (float("nan") * o.logit(0), r"weight: finite numbers"),
    "in a sum": (o.logit(0) + o.channel("con", 0), r"layer: unknown 'con'; did you mean 'conv'"),
    "tensor": (o.tensor_direction("relu", np.ones((7, 1, 4))), r"tensor: \(h, w, C\) within"),
    "target": (o.match("relu", np.ones(4)), r"target: \(6, 8, 4\), as 'relu' is"),
    "features": (o.guide("relu", np.ones((2, 3))), r"features: 4 entries were expected"),
    "place of a direction": (o.direction("pool", np.ones(4), position=(0, 0)), "position: layer"),
    "diversity": (o.diversity("rleu"), r"layer: unknown 'rleu'"),
    "an end": (o.interpolate(o.logit(0), o.logit(7)), r"unit: 0 to 1"),
    "both ends": (o.interpolate(o.logit([0, 1]), o.logit([0, 1, 0])), "objective: as many"),
    "function": (o.function(lambda seen: seen["relu"], "relu"), "call: a floating-point scalar"),
    "batches": (o.logit([0, 1]) + o.channel("conv", [0, 1, 2]), "objective: as many of each"),
    "in a product": (o.logit(0) * o.channel("con", 0), r"layer: unknown 'con'"),
    "batches of a product": (o.logit([0, 1]) * o.logit([0, 1, 0]), "objective: as many of each"),
    "place of a tensor": (
        o.tensor_direction("relu", np.ones((2, 2, 4)), position=(0, 7)),
        r"position\[1\] \(column\): 0 to 6 of 'relu' were expected, given 7",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_compiles(name):
    objective, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        o.check(objective, MODEL, MODEL.input_shape)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: o.channel("a", 1.5), "unit: integers"),
        (lambda: o.channel("a", True), "unit: integers"),
        (lambda: o.neuron("a", 0, (0.5, 1)), "position: integers"),
        (lambda: o.interpolate("a", o.logit(0)), "start: rvis.objectives.base.Objective"),
        (
            lambda: o.interpolate(o.logit(0), o.logit(1), 2),
            "others: rvis.objectives.base.Objective",
        ),
        (lambda: o.function(3, "a"), "call: a function"),
        (lambda: o.tensor_direction("a", T, position=(0.5, 1)), "position: integers"),
        (lambda: o.check("channel", MODEL, MODEL.input_shape), "objective: one of"),
    ],
)
def test_wrong_types_are_named(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_the_gradient_of_a_window_stays_in_it():
    window = o.tensor_direction("a", np.tile(V, (2, 3, 1)), position=(1, 0))
    slope = jax.jit(jax.grad(lambda x: window({"a": x})))(X) * 12
    wanted = np.zeros_like(X)
    wanted[:, 1:3, :3] = V
    np.testing.assert_allclose(slope, wanted, rtol=1e-6)


def test_as_many_pictures_as_objectives_have_one_each():
    each = o.interpolate(o.logit(0), o.logit(1), o.channel("a", 0))
    seen = {"logits": np.eye(3, 2, dtype=np.float32), "a": np.arange(3, dtype=np.float32)[:, None]}
    np.testing.assert_allclose(value(each, seen), (1 + 1 + 2) / 3, rtol=1e-6)


def test_titles():
    product = ((o.logit(0) + o.logit(1)) * o.logit([0, 1])).titles(("cat", "dog"))
    assert product.tolist() == ["(cat + dog) × cat", "(cat + dog) × dog"]
    path = o.interpolate(o.logit(0), o.logit(1), o.channel("a", 3)).titles(("cat", "dog"))
    assert path.tolist() == "cat to dog to a:3"
    titles = (o.channel("a", [1, 2]) - 0.5 * o.logit(0)).titles(("cat", "dog"))
    assert titles.tolist() == ["a:1 − 0.5 × cat", "a:2 − 0.5 × cat"]
    assert o.neuron("a", 3, (0, 5)).titles(()).tolist() == "a:3@0,5"


def test_kinds_with_equal_fields_have_different_structures():
    kinds = (o.logit(0), o.probability(0), o.neuron("logits", 0), o.layer("logits"))
    structures = [jax.tree.structure(kind) for kind in kinds]
    structures.append(jax.tree.structure(o.direction("logits", [0.0, 1.0])))
    structures.append(jax.tree.structure(o.logit(0) * o.logit(1)))
    structures.append(jax.tree.structure(o.interpolate(o.logit(0), o.logit(1))))
    assert all(a != b for i, a in enumerate(structures) for b in structures[:i])


def test_wide_and_narrow_layers_have_one_gram_cosine():
    wide = np.random.default_rng(0).standard_normal((3, 2, 2, 9)).astype(np.float32)
    grams = np.einsum("nhwi,nhwj->nij", wide, wide).reshape(3, -1)
    grams /= np.linalg.norm(grams, axis=1, keepdims=True)
    expected = (np.sum(grams @ grams.T) - 3) / 6
    np.testing.assert_allclose(o.gram_cosine(wide), expected, rtol=1e-5)
    np.testing.assert_allclose(value(o.diversity("w"), {"w": wide}), -2 * expected, rtol=1e-5)


def test_diversity_has_a_finite_gradient_where_nothing_is_active():
    slope = jax.jit(jax.grad(lambda x: o.diversity("w")({"w": x})))(jnp.zeros((2, 3, 3, 4)))
    assert bool(jnp.isfinite(slope).all())


def test_a_cosine_power_has_a_finite_gradient_at_zero():
    slope = jax.jit(jax.grad(lambda x: o.direction("a", V, cosine_power=2)({"a": x})))(
        jnp.zeros((1, 2, 2, 5))
    )
    assert bool(jnp.isfinite(slope).all())


def test_the_gradient_of_a_guide_is_the_nearest_feature():
    slope = jax.jit(jax.grad(lambda x: o.guide("a", np.stack([V, -V]))({"a": x})))(X) * 24
    np.testing.assert_allclose(slope, np.sign(X @ V)[..., None] * V, rtol=1e-5)


def test_the_caricature_of_an_image_is_the_image_exaggerated():
    objective = o.tensor_direction("a", X[0], cosine_power=1)
    same, other = (value(objective, {"a": x[None]}) for x in (X[0], X[0][::-1, ::-1]))
    assert same > other


MANY = {
    "direction": o.direction("relu", np.eye(4, dtype=np.float32), cosine_power=[1, 2, 3, 4]),
    "tensor direction": o.tensor_direction("relu", np.ones((3, 2, 2, 4))),
    "windows": o.tensor_direction("relu", np.ones((2, 2, 4)), position=[(0, 1), (4, 6), (2, 2)]),
    "match": o.match("pool", np.eye(4), many=True),
    "product": o.logit(0) * o.channel("relu", [0, 1, 2]),
    "interpolation": o.interpolate(o.logit(0), o.channel("relu", [0, 1, 2])),
    "function": o.function(spread, ("relu", "pool"), 1.0),
}


@pytest.mark.parametrize("name", MANY)
def test_a_batch_is_its_members(name):
    objective = MANY[name]
    count = objective.batch_shape[0] if objective.batch_shape else 2
    members = objective.broadcast(count)
    seen = {
        "relu": np.abs(np.random.default_rng(0).standard_normal((2, 6, 8, 4), np.float32)),
        "pool": np.ones((2, 4), np.float32),
        "logits": LOGITS,
        "a": np.ones((2, 3), np.float32),
        "d": np.ones((2, 3), np.float32),
    }
    if name == "function":
        objective = members = objective.replace(names=("a", "d")).broadcast(count)
    together = jax.jit(jax.vmap(value, in_axes=(0, None)))(members, seen)
    each = jax.tree.map(np.asarray, members)
    alone = [value(jax.tree.map(lambda leaf, i=i: leaf[i], each), seen) for i in range(count)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)
    assert len(np.atleast_1d(np.broadcast_to(objective.titles(("a", "b")), (count,)))) == count


def test_siblings_are_every_unit_of_the_layer():
    every = o.neuron("relu", [2, 0]).siblings({"relu": (6, 8, 4)})
    assert every.batch_shape == (4,)
    assert o.layer("relu").siblings({"relu": (6, 8, 4)}) is None


def test_a_class_name_that_two_classes_have_is_ambiguous():
    model = toys.pointwise().replace(classes=("crane", "crane"))
    with pytest.raises(ValueError, match="target: 'crane' is .* the name of classes 0 and 1"):
        o.target("target", ["crane"], model, model.input_shape)
    assert int(o.target("target", 1, model, model.input_shape).unit) == 1


@pytest.mark.parametrize("unit", [2**32 + 3, [0, 2**70], None, "cat", [[0], [1, 2]], object()])
def test_a_unit_that_no_layer_has_is_refused(unit):
    for make in (
        lambda: o.channel("a", unit),
        lambda: o.probability(unit),
        lambda: o.neuron("a", 0, (unit, 1)),
    ):
        with pytest.raises((TypeError, ValueError), match="unit|position"):
            make()


def test_all_channels_together_do_not_look_through_each_other_s_places():
    channels, places = 64, 256
    every = o.channel("relu", range(channels))
    x = {"relu": jnp.ones((1, 16, 16, channels))}
    scores = jax.jit(lambda x: jax.vmap(lambda one: one(x))(every))
    work = scores.lower(x).compile().cost_analysis()["flops"]
    assert work < 3 * channels * (places + channels) < channels**2 * places / 10
