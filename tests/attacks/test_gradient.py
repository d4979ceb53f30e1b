"""Gradient attacks on linear models, where the answer is known, and what holds of every attack."""

from __future__ import annotations

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import attacks, core
from rvis.attacks import gradient, losses, pursuit, result
from rvis.attacks.apgd import checkpoints, plan_apgd
from tests import toys
from tests.attacks import small

SHAPE = small.SHAPE
EPS = {"linf": 0.02, "l2": 0.1, "l1": 0.4}
DUAL = {
    "linf": lambda w: np.abs(w).sum(),
    "l2": lambda w: np.sqrt(np.square(w).sum()),
    "l1": lambda w: np.abs(w).max(),
}
EVERY = {
    "fgsm": (attacks.fgsm, {}),
    "bim": (attacks.bim, {"steps": 10}),
    "pgd": (attacks.pgd, {"steps": 10}),
    "apgd": (attacks.apgd, {"steps": 10}),
    "square": (attacks.square, {"steps": 10}),
}
NORMS = {name: ("linf", "l2") if name in ("apgd", "square") else tuple(EPS) for name in EVERY}
PAIRS = [(name, norm) for name in EVERY for norm in NORMS[name]]
CLIMBING = [(name, norm) for name, norm in PAIRS if name != "square"]
TURNING = [(name, norm) for name, norm in PAIRS if name != "fgsm"]  # one step is a straight line


@pytest.fixture(scope="module")
def linear():
    """Two classes whose difference of logits is w·x + b, the images grey: no box is met."""
    weights = np.random.default_rng(1).standard_normal((np.prod(SHAPE), 2)) * 0.05
    return toys.linear(weights, SHAPE), (weights[:, 1] - weights[:, 0]).reshape(SHAPE)


@pytest.fixture(scope="module")
def toy():
    """A small network and images that it takes for what they are labelled."""
    return small.network(), *small.images(5)


def run(name, model, images, labels, **options):
    function, few = EVERY[name]
    return function(model, images, labels, progress=False, **{**few, **options})


@pytest.mark.parametrize(("name", "norm"), CLIMBING)
def test_linear_models_meet_the_optimum_of_the_dual_norm(linear, name, norm):
    model, w = linear
    grey = np.full((1, *SHAPE), 0.5, np.float32)
    steps = {} if name == "fgsm" else {"steps": 40}
    if name == "pgd":  # what is left of the random start fades with the steps' total length
        steps["step_size"] = EPS[norm] / 8
    found = run(name, model, grey, 0, norm=norm, eps=EPS[norm], loss="margin", **steps)
    gained = ((found.images - grey) * w).sum()
    assert gained == pytest.approx(EPS[norm] * DUAL[norm](w), rel=0.01)


@pytest.mark.parametrize(("name", "norm"), PAIRS)
def test_no_radius_is_the_identity_to_the_bit(toy, name, norm):
    model, images, labels = toy
    found = run(name, model, images, labels, norm=norm, eps=0)
    assert (found.images == images).all()
    assert not found.success.any() and found.accuracy == 1


@hypothesis.settings(max_examples=12, deadline=None)
@hypothesis.given(
    pair=st.sampled_from(PAIRS),
    eps=st.floats(0, 4),
    seed=st.integers(0, 100),
    extreme=st.booleans(),
)
def test_attacks_stay_in_the_ball_and_in_the_box(pair, eps, seed, extreme):
    name, norm = pair
    images = np.random.default_rng(seed).random((2, *SHAPE)).astype(np.float32)
    images = np.round(images) if extreme else images
    found = run(name, small.network(), images, [0, 1], norm=norm, eps=eps, key=seed)
    assert (found.distances <= np.float32(eps) * (1 + 1e-6)).all()
    assert found.images.min() >= 0 and found.images.max() <= 1


@pytest.mark.parametrize(("name", "norm"), PAIRS)
def test_an_image_is_the_same_alone_and_among_others(toy, name, norm):
    model, images, labels = toy
    eps = np.linspace(0.5, 1.5, len(images)) * EPS[norm]
    together = run(name, model, images, labels, norm=norm, eps=eps)
    for i in (0, 3):
        alone = run(name, model, images[i], labels[i], norm=norm, eps=eps[i])
        assert (alone.images[0] == together.images[i]).all()
        assert np.array_equal(alone.losses[0], together.losses[i], equal_nan=True)
    again = run(name, model, images, labels, norm=norm, eps=eps)
    assert (again.images == together.images).all()


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_many_images_share_the_lanes(toy, monkeypatch, cores):
    monkeypatch.setattr("rvis.compilation.cores", lambda: cores)
    model, _, _ = toy
    images, labels = small.images(21, seed=3)
    request = result.prepare(model, images, labels, norm="linf", eps=0.03)
    plan = gradient.plan_projected(request, steps=10).stopping()
    found = pursuit.pursue(plan, request, progress=False)
    assert 0 < found.fooled.sum() < len(images)
    for i in (0, 9, 20):
        rows = np.array([i])
        alone = pursuit.pursue(plan.rows(rows), request.rows(rows), progress=False)
        assert (alone.images[0] == found.images[i]).all() and alone.since[0] == found.since[i]
        assert np.array_equal(alone.losses[0], found.losses[i], equal_nan=True)


@pytest.mark.parametrize("name", ["pgd", "square"])
def test_another_key_makes_other_chances(toy, name):
    model, images, labels = toy
    first, second = (
        run(name, model, images, labels, norm="linf", eps=1e-3, key=key) for key in (0, 1)
    )
    assert (first.losses != second.losses).any(1).all()


def test_images_of_one_batch_start_from_different_places(linear):
    model, _ = linear
    images = np.stack([np.full(SHAPE, 0.5), np.full(SHAPE, 0.51)]).astype(np.float32)
    found = attacks.pgd(model, images, 0, eps=0.01, steps=1, step_size=0, progress=False)
    moves = found.images - images
    assert np.abs(moves[0] - moves[1]).max() > 1e-3


@pytest.mark.parametrize("norm", EPS)
def test_more_steps_do_better_and_noise_does_worst(toy, norm):
    model, images, labels = toy
    eps = 8 * EPS[norm]  # far enough for the network not to be linear
    request = result.prepare(model, images, labels, norm=norm, eps=eps)
    noise = np.asarray(jax.vmap(lambda b, k: b.sample(k))(gradient.balls(request), request.keys))

    def loss(pictures):
        z = np.asarray(jax.nn.log_softmax(model(pictures)))
        return -z[np.arange(len(labels)), labels].mean()

    once, often = (run(name, model, images, labels, norm=norm, eps=eps) for name in ("fgsm", "pgd"))
    assert loss(often.images) > loss(once.images) > loss(noise[:, 0])


@pytest.mark.parametrize(("name", "norm"), TURNING)
def test_without_bounds_every_image_is_fooled(toy, name, norm):
    model, images, labels = toy
    steps = 500 if name == "square" else 60
    found = run(name, model, images, labels, norm=norm, eps=np.inf, steps=steps)
    assert found.success.all() and (found.iterations >= 0).all()


def test_a_result_tells_how_to_make_it_again(toy):
    model, images, labels = toy
    found = run("square", model, images[:1], labels[:1], norm="l2", eps=0.1, key=3)
    named = {"function": "square", "model": "small", "norm": "l2", "targeted": False, "steps": 10}
    assert named.items() <= found.config.items()
    assert found.config["labels"] == labels[:1].tolist()
    assert found.config["key"] == {"key": [0, 3]}


@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize("name", ["pgd", "apgd"])
def test_targets_are_reached(toy, name, loss):
    model, images, labels = toy
    targets = (labels + 1) % 5
    found = run(
        name, model, images, targets, targeted=True, norm="l2", eps=np.inf, steps=60, loss=loss
    )
    assert found.targeted and found.success.all()
    assert (found.predictions == targets).all()


def test_what_is_wrong_already_needs_no_step(toy):
    model, images, labels = toy
    wrong = (labels + 1) % 5
    found = attacks.pgd(model, images, wrong, eps=1e-4, steps=3, progress=False)
    assert found.success.all() and (found.iterations == 0).all()


def test_iterations_count_the_steps_until_the_first_success(linear):
    """A step of α raises the margin by α·‖w‖₁, so that the margin −m is gone after ⌈m/(α‖w‖₁)⌉."""
    model, w = linear
    grey = np.full((1, *SHAPE), 0.5, np.float32)
    label = int(np.asarray(model(grey)).argmax())
    z = np.asarray(model(grey))[0]
    margin, alpha = z[label] - z[1 - label], 0.3 * (z[label] - z[1 - label]) / np.abs(w).sum()
    found = attacks.bim(model, grey, label, eps=0.4, steps=8, step_size=alpha, progress=False)
    assert margin > 0 and found.iterations.tolist() == [4]
    assert found.losses.shape == (1, 8) and (np.diff(found.losses[0]) > 0).all()


def test_restarts_go_on_with_what_still_holds(toy):
    model, images, labels = toy
    options = {"norm": "linf", "eps": 0.02, "steps": 2, "progress": False}
    once = attacks.pgd(model, images, labels, **options)
    thrice = attacks.pgd(model, images, labels, restarts=3, **options)
    assert thrice.success.sum() >= once.success.sum()
    assert (thrice.images[once.success] == once.images[once.success]).all()
    held = ~once.success
    assert (thrice.losses[held].max(1) >= once.losses[held].max(1) - 0.05).all()


def test_sweeps_trace_once(toy, monkeypatch):
    _, images, labels = toy
    model = small.network(classes=7)  # which no other test has compiled
    traced = []
    energy = core.ascent.energy

    def counted(*args, **options):
        traced.append(1)
        return energy(*args, **options)

    monkeypatch.setattr(core.ascent, "energy", counted)
    attacks.pgd(model, images, labels, eps=0.011, steps=10, progress=False)
    begun = len(traced)
    for eps, size, steps in ((0.02, 0.001, 10), ([0, 0.1, 0.2], None, 40), (0.3, 0.1, 20)):
        n = np.size(eps)
        options = {"eps": eps, "step_size": size, "steps": steps, "progress": False}
        attacks.pgd(model, images[:n], labels[:n], **options)
    assert begun and len(traced) == begun


def test_any_number_of_images_shares_the_programs():
    model = small.network()

    def programs():
        jitted = pursuit._keys, pursuit._settled, result._logits, core.init, core.run
        return [function._cache_size() for function in jitted]

    def attack(count):
        images, labels = small.images(count)
        run("pgd", model, images, labels, norm="linf", eps=0.02)

    attack(9)
    before = programs()
    for count in (1, 5, 21):
        attack(count)
    assert programs() == before


def test_apgds_checkpoints_are_those_of_the_paper():
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert checkpoints(1) == ()
    assert all(0 < mark < 7 for mark in checkpoints(7))


def test_apgd_halves_its_step_where_nothing_improves():
    """On a model that says nothing of the image the loss never rises."""
    model = toys.linear(np.zeros((np.prod(SHAPE), 3)), SHAPE)
    grey = np.full((1, *SHAPE), 0.5, np.float32)
    request = result.prepare(model, grey, 1, norm="linf", eps=0.1)
    plan = plan_apgd(request, steps=100)
    state = core.init(plan.attack, request.keys, plan.position)
    state, _ = core.run(plan.attack, request.keys, state, request.model, plan.problem, steps=100)
    assert float(state.size[0]) == pytest.approx(0.2 / 2**8)


def test_scores_of_objectives_by_hand():
    z = {"logits": jnp.asarray([[3.0, 1.0, 0.0, -2.0]])}
    zero, one = jnp.int32(0), jnp.int32(1)
    assert float(losses.Margin(zero)(z)) == -2
    assert float(losses.Margin(one, True)(z)) == -2
    assert float(losses.DLR(zero)(z)) == pytest.approx(-2 / 3)
    assert float(losses.DLR(one)(z)) == pytest.approx(2 / 3)
    assert float(losses.TargetedDLR(zero, one)(z)) == pytest.approx(-2 / 4)


def test_scaled_logits_change_nothing_of_dlr(toy):
    model, images, labels = toy
    scaled = model.replace(params={**model.params, "dense": 1024 * model.params["dense"]})
    plain, loud = (
        attacks.apgd(m, images, labels, eps=0.02, steps=5, loss="dlr", progress=False)
        for m in (model, scaled)
    )
    assert np.abs(plain.images - loud.images).max() < 1e-6


def test_apgd_beats_pgd_at_equal_steps(mnist_test):
    model = rvis.load("mnist_cnn_robust")
    test = mnist_test.take(np.arange(16))
    images, labels = np.asarray(test.floats(np.arange(16))), test.labels
    options = {"norm": "linf", "eps": 0.35, "steps": 20, "progress": False}
    plain = attacks.pgd(model, images, labels, **options)
    auto = attacks.apgd(model, images, labels, **options)
    assert auto.success.sum() >= plain.success.sum()
    assert auto.losses.max(1).mean() > plain.losses.max(1).mean()


@pytest.mark.parametrize(
    ("changed", "error", "named"),
    [
        ({"eps": -0.1}, ValueError, "eps"),
        ({"eps": "large"}, TypeError, "eps"),
        ({"eps": [0.1, 0.2]}, ValueError, "eps"),
        ({"eps": float("nan")}, ValueError, "eps"),
        ({"norm": "l3"}, ValueError, "norm"),
        ({"labels": 5}, ValueError, "labels"),
        ({"labels": [0, 1]}, ValueError, "labels"),
        ({"labels": 0.5}, TypeError, "labels"),
        ({"images": np.zeros((1, *SHAPE), np.uint8)}, TypeError, "images"),
        ({"images": np.full(SHAPE, 2.0)}, ValueError, "images"),
        ({"model": None}, TypeError, "model"),
        ({"targeted": "yes"}, TypeError, "targeted"),
        ({"key": 0.5}, TypeError, "key"),
        ({"loss": "hinge"}, ValueError, "loss"),
    ],
)
@pytest.mark.parametrize("name", EVERY)
def test_bad_arguments_are_named(toy, name, changed, error, named):
    model, images, labels = toy
    given = {"model": model, "images": images, "labels": labels, "norm": "linf", "eps": 0.1}
    given |= changed
    with pytest.raises(error, match=f"^{named}:"):
        run(name, given.pop("model"), given.pop("images"), given.pop("labels"), **given)


@pytest.fixture
def idle(monkeypatch):
    """Nothing may be run, and so nothing compiled."""

    def ran(*arguments):
        raise AssertionError("the model was run")

    monkeypatch.setattr(result, "_logits", ran)
    monkeypatch.setattr(core, "run", ran)


@pytest.mark.parametrize(
    ("name", "changed", "error", "named"),
    [
        ("pgd", {"steps": 0}, ValueError, "steps"),
        ("pgd", {"restarts": 0}, ValueError, "restarts"),
        ("pgd", {"step_size": -1}, ValueError, "step_size"),
        ("bim", {"step_size": np.inf}, ValueError, "step_size"),
        ("apgd", {"norm": "l1"}, ValueError, "norm"),
        ("apgd", {"steps": 1.5}, TypeError, "steps"),
        ("square", {"p": 0}, ValueError, "p"),
        ("apgd", {"loss": "dlr", "targeted": True, "steps": 0}, ValueError, "steps"),
        ("square", {"loss": "hinge"}, ValueError, "loss"),
        ("square", {"norm": "l1"}, ValueError, "norm"),
    ],
)
def test_bad_options_are_named_before_the_model_is_run(toy, idle, name, changed, error, named):
    model, images, labels = toy
    options = {"norm": "linf", "eps": 0.1, **changed}
    with pytest.raises(error, match=f"^{named}:"):
        run(name, model, images, labels, **options)


def test_dlr_asks_for_enough_classes(linear):
    model, _ = linear
    with pytest.raises(ValueError, match="^loss: 'dlr' needs 3 classes, given a model of 2"):
        attacks.pgd(model, np.zeros(SHAPE, np.float32), 0, eps=0.1, loss="dlr")


def test_a_loss_of_nan_is_refused(linear):
    model, _ = linear
    broken = model.replace(params=model.params * np.nan)
    attack = functools.partial(attacks.pgd, eps=0.1, steps=2, progress=False)
    with pytest.raises(FloatingPointError, match=r"images \[0, 1\]"):
        attack(broken, np.zeros((2, *SHAPE), np.float32), 0)
