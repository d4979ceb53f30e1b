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
from rvis import attacks, engine, objectives
from rvis.attacks import losses
from rvis.attacks.apgd import checkpoints, plan_apgd
from rvis.attacks.attack import balls, run_plan
from rvis.attacks.gradient import _resized, plan_pgd
from rvis.attacks.request import prepare
from rvis.engine import programs
from rvis.engine.slots import Group
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
    "bim": (attacks.bim, {"steps": 60}),  # as many everywhere: one program each
    "pgd": (attacks.pgd, {"steps": 60}),
    "mi_fgsm": (attacks.mi_fgsm, {"steps": 60, "diversity": 0.5}),
    "apgd": (attacks.apgd, {"steps": 60}),
    "square": (attacks.square, {"steps": 10}),
}
PAIRS = [(name, norm) for name in EVERY for norm in EPS]
CLIMBING = [(name, norm) for name, norm in PAIRS if name != "square"]
# On linear models all of them are tried; of these two a small network in whole runs sees one norm,
# since their balls and steps are those of PGD.
SELDOM = [(name, norm) for name in ("fgsm", "mi_fgsm") for norm in ("l2", "l1")]


def marked(pairs, seldom=SELDOM):
    return [pytest.param(*pair, marks=[pytest.mark.slow] * (pair in seldom)) for pair in pairs]


TURNING = [(name, norm) for name, norm in PAIRS if name != "fgsm"]  # one step is a straight line
SQUARES = [("square", norm) for norm in ("l2", "l1")]


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
    if name == "mi_fgsm":  # smaller images have other gradients
        steps["diversity"] = 0.0
    found = run(name, model, grey, 0, norm=norm, eps=EPS[norm], loss="margin", **steps)
    gained = ((found.images - grey) * w).sum()
    assert gained == pytest.approx(EPS[norm] * DUAL[norm](w), rel=0.01)


@pytest.mark.parametrize(("name", "norm"), marked(PAIRS))
def test_no_radius_is_the_identity_to_the_bit(toy, name, norm):
    model, images, labels = toy
    found = run(name, model, images, labels, norm=norm, eps=0)
    assert (found.images == images).all()
    assert not found.success.any() and found.accuracy == 1


@hypothesis.settings(max_examples=12, deadline=None)
@hypothesis.given(
    pair=st.sampled_from([pair for pair in PAIRS if pair not in SELDOM]),
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


@pytest.mark.parametrize(("name", "norm"), marked(PAIRS))
def test_an_image_is_the_same_alone_and_among_others(toy, name, norm):
    model, images, labels = toy
    eps = np.linspace(0.5, 1.5, len(images)) * EPS[norm]
    together = run(name, model, images, labels, norm=norm, eps=eps)
    for i in (0, 3):
        alone = run(name, model, images[i], labels[i], norm=norm, eps=eps[i])
        assert (alone.images == together.images[i]).all()
        assert np.array_equal(alone.losses, together.losses[i], equal_nan=True)
    again = run(name, model, images, labels, norm=norm, eps=eps)
    assert (again.images == together.images).all()


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_what_an_image_meets_does_not_depend_on_the_others_in_the_queue(toy, monkeypatch, cores):
    monkeypatch.setattr("rvis.kernels.threads.cores", lambda: cores)
    model, _, _ = toy
    images, labels = small.images(21, seed=3)
    request = prepare(model, images, labels, norm="linf", eps=0.03)
    plan = plan_pgd(request, steps=10).stopping()
    found = run_plan(plan, request, progress=False)
    assert 0 < found.success.sum() < len(images)
    for i in (0, 9, 20):
        rows = np.array([i])
        alone = run_plan(plan.rows(rows), request.rows(rows), progress=False)
        for one, all_ in zip(alone, found, strict=True):
            np.testing.assert_array_equal(one[0], all_[i])
    late = np.arange(10) > np.where(found.success, found.since, 10)[:, None]
    np.testing.assert_array_equal(np.isnan(found.losses), late)


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
    request = prepare(model, images, labels, norm=norm, eps=eps)
    noise = np.asarray(jax.jit(jax.vmap(lambda b, k: b.sample(k)))(balls(request), request.keys()))

    def loss(pictures):
        z = np.asarray(jax.nn.log_softmax(model(pictures)))
        return -z[np.arange(len(labels)), labels].mean()

    once, often = (run(name, model, images, labels, norm=norm, eps=eps) for name in ("fgsm", "pgd"))
    assert loss(often.images) > loss(once.images) > loss(noise[:, 0])


@pytest.mark.parametrize(("name", "norm"), marked(TURNING, [*SELDOM, *SQUARES]))
def test_without_bounds_every_image_is_fooled(toy, name, norm):
    model, images, labels = toy
    more = {"steps": 500} if name == "square" else {}
    found = run(name, model, images, labels, norm=norm, eps=np.inf, **more)
    assert found.success.all() and (found.iterations >= 0).all()


def test_a_result_tells_how_to_make_it_again(toy):
    model, images, labels = toy
    found = run("square", model, images[:1], labels[:1], norm="l2", eps=0.1, key=3)
    named = {"function": "square", "model": "small", "norm": "l2", "target": None, "steps": 10}
    assert named.items() <= found.config.items()
    assert found.config["labels"] == labels[:1].tolist()
    assert found.config["key"] == {"key": [0, 3]}


# The losses are the same objects to both.
@pytest.mark.parametrize(
    ("name", "loss"),
    [
        pytest.param(name, loss, marks=[pytest.mark.slow] * ((name == "apgd") != (loss == "dlr")))
        for name in ("pgd", "apgd")
        for loss in losses.LOSSES
    ],
)
def test_targets_are_reached(toy, name, loss):
    model, images, labels = toy
    target = (labels + 1) % 5
    options = {"norm": "l2", "eps": np.inf, "steps": 60, "loss": loss}
    found = run(name, model, images, labels, target=target, **options)
    assert found.targeted and found.success.all()
    assert (found.predictions == target).all()


def test_names_mean_the_classes_of_these_names(toy):
    model, images, labels = toy
    named = [model.classes[i] for i in labels]
    plain, other = (
        attacks.pgd(model, images, y, target=t, eps=0.02, steps=3, progress=False)
        for y, t in ((labels, 2), (named, "c2"))
    )
    np.testing.assert_array_equal(plain.images, other.images)
    double = model.replace(classes=("crane", "dog", "eel", "crane", "fox"))
    with pytest.raises(ValueError, match="^labels: 'crane' is ambiguous.* 0 and 3"):
        attacks.pgd(double, images, "crane", eps=0.02)
    with pytest.raises(ValueError, match="^target: unknown 'cran'; did you mean 'crane'"):
        attacks.pgd(double, images, "dog", target="cran", eps=0.02)


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


def test_sweeps_trace_once(toy):
    _, images, labels = toy
    model = small.network(classes=7)  # which no other test has compiled
    attacks.pgd(model, images, labels, eps=0.011, steps=10, progress=False)
    begun = programs.advance._cache_size()
    for eps, size in ((0.02, 0.001), ([0, 0.1, 0.2], None), (0.3, 0.1)):
        n = np.size(eps)
        options = {"eps": eps, "step_size": size, "steps": 10, "progress": False}
        attacks.pgd(model, images[:n], labels[:n] if n > 1 else labels[0], **options)
    assert programs.advance._cache_size() == begun


def test_any_number_of_images_and_steps_shares_the_programs_of_what_stops():
    def attack(count, steps):
        images, labels = small.images(count)
        options = {"norm": "linf", "eps": 0.02, "steps": steps, "key": 1}
        run("square", small.network(), images, labels, **options)

    attack(9, 50)
    begun = programs.advance._cache_size(), programs.finish._cache_size()
    for count, steps in ((1, 200), (5, 60), (21, 50)):
        attack(count, steps)
    assert (programs.advance._cache_size(), programs.finish._cache_size()) == begun


@pytest.mark.parametrize("decay", [0.0, 0.7])
def test_mi_fgsm_adds_up_gradients_of_mean_one(toy, decay):
    model, images, _ = toy
    images = 0.4 + images / 5  # where the box is not met
    labels = np.asarray(model(images)).argmax(1)
    options = {"norm": "l2", "eps": 1.2, "decay": decay, "steps": 4}
    found = run("mi_fgsm", model, images, labels, **{**options, "diversity": 0.0})
    slope = jax.jit(jax.grad(lambda x, label: -jax.nn.log_softmax(model(x))[0, label]))
    for image, label, end in zip(images, labels, found.images, strict=True):
        x, velocity = image, 0
        for _ in range(4):
            gradient = np.asarray(slope(x, label))
            velocity = decay * velocity + gradient / np.abs(gradient).mean()
            x = x + 0.3 * velocity / np.linalg.norm(velocity)
        np.testing.assert_allclose(end, x, atol=2e-4)


def test_di_fgsm_resizes_as_often_as_asked():
    keys, image = jax.random.split(jax.random.key(0), 400), np.ones((1, 12, 12, 1), np.float32)
    shown = np.asarray(jax.vmap(lambda key: _resized(key, image, 0.3))(keys))
    assert 0.23 < (shown != image).any((1, 2, 3, 4)).mean() < 0.37


def test_apgds_checkpoints_are_those_of_the_paper():
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert checkpoints(1) == ()
    assert all(0 < mark < 7 for mark in checkpoints(7))


def croce_and_hein(model, image, label, norm, eps, steps):
    """The losses of algorithm 1's iterates from the image itself, by its lines."""

    def loss(x):
        return -jax.nn.log_softmax(model(x))[0, label]

    def ball(x):
        move = np.asarray(x) - image
        if norm == "linf":
            move = move.clip(-eps, eps)
        else:
            move = move * min(1, eps / max(np.linalg.norm(move), 1e-12))
        return (image + move).clip(0, 1)

    def moved(x, gradient, eta):
        gradient = np.asarray(gradient, np.float64)
        unit = np.sign(gradient) if norm == "linf" else gradient / np.linalg.norm(gradient)
        return ball(x + eta * unit)

    value_and_grad = jax.jit(jax.value_and_grad(loss))

    def at(x):
        value, gradient = value_and_grad(np.asarray(x, np.float32))
        return float(value), np.asarray(gradient)

    eta, before, x = 2 * eps, image, image
    f, gradient = at(x)
    losses, halvings = [f], 0
    x_max, f_max, g_max = x, f, gradient
    x = moved(x, gradient, eta)
    marks, rises, last, since, f_last, halved = checkpoints(steps), 0, f, 0, f_max, False
    for k in range(1, steps):
        f, gradient = at(x)
        losses.append(f)
        rises += f > last
        if f > f_max:
            x_max, f_max, g_max = x, f, gradient
        last = f
        if k in marks:
            few, stuck = rises < 0.75 * (k - since), not halved and f_max == f_last
            halved = few or stuck
            if halved:
                eta, x, gradient, last, halvings = eta / 2, x_max, g_max, f_max, halvings + 1
            rises, since, f_last = 0, k, f_max
        z = moved(x, gradient, eta)
        before, x = x, ball(x + 0.75 * (z - x) + 0.25 * (x - before))
    return np.asarray(losses), halvings


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_takes_the_steps_of_its_algorithm(toy, norm):
    model, images, labels = toy
    eps, steps = 3 * EPS[norm], 12
    request = prepare(model, images, labels, norm=norm, eps=eps)
    plan = plan_apgd(request, steps=steps, drawn=False)
    found = run_plan(plan, request, progress=False)
    halvings = []
    for i in range(len(images)):
        losses, count = croce_and_hein(model, images[i], labels[i], norm, eps, steps)
        np.testing.assert_allclose(found.losses[i], losses, rtol=2e-3)
        halvings.append(count)
    assert 0 < sum(halvings) < len(images) * len(checkpoints(steps))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_starts_on_the_surface(norm):
    grey = np.full((3, *SHAPE), 0.5, np.float32) + np.arange(3).reshape(3, 1, 1, 1) / 100
    request = prepare(small.network(), grey.astype(np.float32), 0, norm=norm, eps=EPS[norm])
    plan = plan_apgd(request, steps=3)
    begun = jax.jit(jax.vmap(plan.attack.init))(request.keys(), plan.starts).position[:, 0]
    np.testing.assert_allclose(attacks.distances(grey, begun, norm), EPS[norm], rtol=1e-5)
    assert len({image.tobytes() for image in np.asarray(begun - grey)}) == 3


def test_apgd_halves_its_step_where_nothing_improves():
    """On a model that says nothing of the image the loss never rises."""
    model = toys.linear(np.zeros((np.prod(SHAPE), 3)), SHAPE)
    request = prepare(model, np.full((1, *SHAPE), 0.5, np.float32), 1, norm="linf", eps=0.1)
    plan = plan_apgd(request, steps=100)
    found = run_plan(plan, request, progress=False)
    assert found.scores == pytest.approx(np.log(3)) and np.ptp(found.losses) == 0


def interrupt(monkeypatch, at):
    """Ctrl-C at a piece of a run of more than a step; the pieces so far."""
    plain, calls = Group.advance, []

    def advance(group):
        if group.work.steps > 1:
            calls.append(1)
            if len(calls) == at:
                raise KeyboardInterrupt
        return plain(group)

    monkeypatch.setattr(Group, "advance", advance)
    return calls


@pytest.mark.parametrize(
    ("attack", "options"),
    [
        (attacks.pgd, {"eps": 0.01, "steps": 20, "restarts": 3}),
        (attacks.square, {"eps": 0.01, "steps": 200}),
        (attacks.deepfool, {"steps": 5, "overshoot": 0.0}),
    ],
)
def test_an_interrupted_attack_goes_on(toy, monkeypatch, tmp_path, attack, options):
    model, images, labels = toy
    run = functools.partial(attack, model, images, labels, progress=False, **options)
    whole = run()
    calls = interrupt(monkeypatch, at=3)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=tmp_path / "half")
    with pytest.raises(ValueError, match="^checkpoint: "):
        attack(
            model,
            images[::-1],
            labels[::-1],
            progress=False,
            checkpoint=tmp_path / "half",
            **options,
        )
    resumed = len(calls)
    again = run(checkpoint=tmp_path / "half")
    resumed, calls[:] = len(calls) - resumed, [0] * 9
    run()
    assert resumed < len(calls) - 9
    for name in ("images", "losses", "iterations"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    assert not (tmp_path / "half").exists()


@pytest.mark.parametrize(
    ("attack", "options"),
    [
        (attacks.pgd, {"eps": 0.02, "steps": 6}),
        (attacks.square, {"eps": 0.02, "steps": 6}),
        (attacks.deepfool, {"steps": 6}),
        (attacks.lbfgs, {"steps": 3, "binary_search_steps": 2}),
    ],
)
def test_a_callback_sees_all_images_changes_none_and_ends_the_run(toy, attack, options):
    model, images, labels = toy
    run = functools.partial(attack, model, images, labels, progress=False, **options)
    heard = []

    def callback(step, pictures, scores):
        heard.append((step, pictures, scores))

    whole, watched = run(), run(callback=callback)
    np.testing.assert_array_equal(watched.images, whole.images)
    np.testing.assert_array_equal(watched.losses, whole.losses)
    assert [step for step, _, _ in heard] == list(range(1, len(heard) + 1))
    for step, pictures, scores in heard:
        assert pictures.shape == images.shape and scores.shape == (5, step)
    np.testing.assert_array_equal(heard[-1][1], whole.images)

    ended = run(callback=lambda step, *_: step == 1)
    np.testing.assert_array_equal(ended.images, heard[0][1])
    assert np.isnan(ended.losses[:, 1:]).all() and np.isfinite(ended.losses[:, 0]).all()


def test_steps_of_a_callback_count_on_over_restarts_and_it_ends_them_all(toy):
    model, images, labels = toy
    options = {"eps": 1e-4, "steps": 4, "restarts": 3, "progress": False}
    steps = []
    attacks.pgd(model, images, labels, callback=lambda s, *_: steps.append(s), **options)
    assert steps == list(range(1, 13))
    steps.clear()
    attacks.pgd(model, images, labels, callback=lambda s, *_: steps.append(s) or s == 6, **options)
    assert steps == list(range(1, 7))


def test_one_image_gives_a_result_without_the_axis(toy, tmp_path):
    model, images, labels = toy
    whole = attacks.pgd(model, images[:1], labels[:1], eps=0.02, steps=3, progress=False)
    seen = []
    options = {"eps": 0.02, "steps": 3, "progress": False}
    found = attacks.pgd(
        model, images[0], labels[0], callback=lambda _, x, y: seen.append((x, y)), **options
    )
    assert seen[-1][0].shape == SHAPE and seen[-1][1].shape == (3,)
    for name in ("images", "originals", "labels", "success", "distances", "losses"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name)[0])
    assert found.accuracy == whole.accuracy
    np.testing.assert_array_equal(found.distance("l2"), whole.distance("l2")[0])
    assert np.asarray(found.show()).shape == np.asarray(whole.show()).shape
    assert (found.save(tmp_path) / "card.json").exists()


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
        ({"labels": [0]}, ValueError, "labels"),
        ({"labels": "cat"}, ValueError, "labels"),
        ({"target": 5}, ValueError, "target"),
        ({"target": [1, 2]}, ValueError, "target"),
        ({"callback": 3}, TypeError, "callback"),
        ({"chunk": 0}, ValueError, "chunk"),
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

    def ran(*arguments, **options):
        raise AssertionError("the model was run")

    monkeypatch.setattr(engine, "run", ran)
    monkeypatch.setattr(engine, "apply", ran)


@pytest.mark.parametrize(
    ("name", "changed", "error", "named"),
    [
        ("pgd", {"steps": 0}, ValueError, "steps"),
        ("pgd", {"restarts": 0}, ValueError, "restarts"),
        ("pgd", {"step_size": -1}, ValueError, "step_size"),
        ("bim", {"step_size": np.inf}, ValueError, "step_size"),
        ("apgd", {"steps": 1.5}, TypeError, "steps"),
        ("square", {"p": 0}, ValueError, "p"),
        ("apgd", {"loss": "dlr", "target": 1, "steps": 0}, ValueError, "steps"),
        ("square", {"rescale_schedule": "no"}, TypeError, "rescale_schedule"),
        ("square", {"loss": "hinge"}, ValueError, "loss"),
    ],
)
def test_bad_options_are_named_before_the_model_is_run(toy, idle, name, changed, error, named):
    model, images, labels = toy
    options = {"norm": "linf", "eps": 0.1, **changed}
    with pytest.raises(error, match=f"^{named}:"):
        run(name, model, images, labels, **options)


@pytest.mark.parametrize(
    ("loss", "named"),
    [
        (objectives.channel("nowhere", 0), "layer"),
        (objectives.channel("logits", 99), "unit"),
        (objectives.channel("logits", [0, 1, 2]), "loss"),
    ],
)
def test_an_objective_that_does_not_fit_is_named_before_the_model_is_run(toy, idle, loss, named):
    model, images, labels = toy
    for attack in (attacks.pgd, attacks.apgd, attacks.universal):
        with pytest.raises(ValueError, match=f"^{named}:"):
            attack(model, images[:2], labels[:2], eps=0.1, loss=loss)


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
