"""The step against closed forms; the runner: one trace, the same bits, interruption and resumption."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import core, images, objectives, optimizers, projections, regularizers
from rvis.models import layers
from tests import toys

SHAPE = (4, 5, 1)
WEIGHTS = np.random.default_rng(1).standard_normal((20, 3)).astype(np.float32)


def setup(count=1, optimizer=None, constraint=None, penalties=(), facets=1):
    model = toys.linear(WEIGHTS, SHAPE)
    optimizer = optimizers.sgd(0.1) if optimizer is None else optimizer
    algorithm = core.Ascent(images.Pixel(SHAPE, sd=0.0), optimizer, facets=facets)
    objective = objectives.channel("out", np.arange(count) % 3)
    problem = core.Problem(objective, penalties, constraint).broadcast(count)
    keys = jax.random.split(jax.random.key(0), count)
    return algorithm, keys, model, problem


def advance(algorithm, keys, model, problem, steps=3, width=None):
    state = core.init(algorithm, keys)
    return core.run(algorithm, keys, state, model, problem, steps=steps, width=width)


def test_plain_ascent_on_a_linear_model_moves_along_the_weights():
    state, _ = advance(*setup(2))
    expected = 0.5 + 0.3 * WEIGHTS.T[:2].reshape(2, 1, *SHAPE)
    np.testing.assert_allclose(state.position, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("norm", "direction"),
    [("l2", WEIGHTS[:, 0] / np.linalg.norm(WEIGHTS[:, 0])), ("linf", np.sign(WEIGHTS[:, 0]))],
)
def test_steepest_ascent_has_steps_of_the_stated_length(norm, direction):
    state, _ = advance(*setup(optimizer=optimizers.steepest(0.1, norm=norm)), steps=1)
    np.testing.assert_allclose(state.position.ravel() - 0.5, 0.1 * direction, atol=1e-7)


def test_a_zero_gradient_makes_no_step():
    algorithm, keys, model, problem = setup(optimizer=optimizers.steepest(0.1))
    still = model.replace(params=jnp.zeros_like(model.params))
    state, _ = advance(algorithm, keys, still, problem)
    np.testing.assert_array_equal(state.position, 0.5)


def test_penalties_are_subtracted():
    penalty = regularizers.lp_norm(2.0, 2.0)
    _, plain = advance(*setup())
    _, penalised = advance(*setup(penalties=(penalty,)), steps=1)
    np.testing.assert_allclose(plain.energy[:, :1], penalised.energy, rtol=1e-6)
    algorithm, keys, model, problem = setup(penalties=(penalty,))
    start = jnp.full((1, 1, *SHAPE), 0.75)
    state = core.init(algorithm, keys, start)
    _, info = core.run(algorithm, keys, state, model, problem, steps=1)
    lost = float((info.score - info.energy)[0, 0])
    assert lost == pytest.approx(float(penalty(start[0])), rel=1e-5)
    assert lost > 0.1


def test_a_ball_is_reached_at_the_dual_optimum_and_never_left():
    centre = jnp.full(SHAPE, 0.5)
    problem = setup(optimizer=optimizers.steepest(0.05), constraint=projections.L2Ball(centre, 0.2))
    state, _ = advance(*problem, steps=20)
    optimum = 0.2 * WEIGHTS[:, 0] / np.linalg.norm(WEIGHTS[:, 0])
    np.testing.assert_allclose(state.position.ravel() - 0.5, optimum, atol=1e-5)


def test_scores_are_those_before_each_step():
    _, info = advance(*setup(), steps=2)
    start = 0.5 * WEIGHTS[:, 0].sum()
    rise = 0.1 * (WEIGHTS[:, 0] ** 2).sum()
    np.testing.assert_allclose(info.score[0], [start, start + rise], rtol=1e-5)


def test_the_batch_equals_its_members_one_by_one():
    whole, _ = advance(*setup(3))
    algorithm, keys, model, problem = setup(3)
    for i in range(3):
        alone = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], (keys, problem))
        state, _ = advance(algorithm, alone[0], model, alone[1])
        np.testing.assert_allclose(state.position[0], whole.position[i], rtol=1e-6)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_width_changes_no_result(width):
    expected, _ = advance(*setup(5))
    state, _ = advance(*setup(5), width=width)
    np.testing.assert_allclose(state.position, expected.position, rtol=1e-6)


def test_units_rates_radii_and_weights_trace_once():
    @jax.jit
    @functools.partial(chex.assert_max_traces, n=1)
    def once(algorithm, keys, state, model, problem):
        return core.run(algorithm, keys, state, model, problem, steps=2)

    for unit, rate, radius, weight in ((0, 0.1, 0.2, 1.0), (2, 0.3, 0.5, 0.0), (1, 1.0, 2.0, 3.0)):
        ball = projections.L2Ball(jnp.full(SHAPE, 0.5), jnp.float32(radius))
        algorithm, keys, model, _ = setup(optimizer=optimizers.adam(rate))
        objective = weight * objectives.channel("out", unit)
        penalties = (regularizers.total_variation(weight),)
        problem = core.Problem(objective, penalties, ball).broadcast(1)
        once(algorithm, keys, core.init(algorithm, keys), model, problem)


def test_a_single_step_alone_has_a_gradient_in_reverse():
    algorithm, keys, model, problem = setup(1)

    def score(params):
        state = core.init(algorithm, keys)
        trained = model.replace(params=params)
        return core.run(algorithm, keys, state, trained, problem, steps=1)[1].score.sum()

    slopes = jax.tree.leaves(jax.grad(score)(model.params))
    assert any(float(jnp.abs(slope).max()) > 0 for slope in slopes)


def test_a_single_step_stays_a_loop_so_that_its_bits_are_those_of_many():
    algorithm, keys, model, problem = setup(2)

    def loops(steps):
        state = jax.eval_shape(core.init, algorithm, keys)
        options = {"steps": steps, "piece": True}
        lowered = core.run.lower(algorithm, keys, state, model, problem, **options)
        return lowered.compile().as_text().count(" while(")

    assert loops(1) == loops(3) > 0


@pytest.mark.parametrize(
    ("steps", "stops", "length"),
    [(512, (), 64), (512, (32, 128), 32), (90, (), 45), (2048, (4, 48), 4), (7, (3,), 1)],
)
def test_segments_reach_every_stop(steps, stops, length):
    assert core.segment_length(steps, stops) == length


def drive(**options):
    algorithm, keys, model, problem = setup(5)
    options = {"steps": 6, "progress": False, **options}
    return list(core.drive(algorithm, keys, model, problem, **options))


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 8, None])
def test_chunks_change_no_picture(chunk):
    outcomes = drive(chunk=chunk, width=1)
    pictures = np.concatenate([outcome.images for outcome in outcomes])
    np.testing.assert_array_equal(pictures, drive(chunk=5, width=1)[0].images)
    assert [i for outcome in outcomes for i in outcome.rows] == list(range(5))


@pytest.mark.parametrize("cores", [2, 5])
def test_cores_change_no_picture(monkeypatch, cores):
    monkeypatch.setattr("rvis.compilation.cores", lambda: cores)
    single, grouped = drive(width=1, chunk=1), drive(width=1)
    assert len(grouped) == (2 if jax.default_backend() == "cpu" else 5)
    for get in (lambda outcome: outcome.images, lambda outcome: outcome.info.score):
        one, other = (np.concatenate([get(o) for o in run]) for run in (single, grouped))
        np.testing.assert_array_equal(one, other)


def test_a_run_goes_on_where_there_are_more_cores(monkeypatch, tmp_path):
    monkeypatch.setattr("rvis.compilation.cores", lambda: 2)
    whole = np.concatenate([o.images for o in drive(width=1)])
    with monkeypatch.context() as patched:
        patched.setattr(core.runner, "tqdm", Interrupted(2))
        with pytest.raises(KeyboardInterrupt):
            drive(width=1, checkpoint=tmp_path, snapshots=(2,))
    assert list(tmp_path.iterdir())
    monkeypatch.setattr("rvis.compilation.cores", lambda: 3)
    resumed = drive(width=1, checkpoint=tmp_path, snapshots=(2,))
    np.testing.assert_array_equal(np.concatenate([o.images for o in resumed]), whole)


def test_snapshots_are_the_pictures_after_so_many_steps():
    (outcome,) = drive(snapshots=(0, 2, 6), chunk=5)
    np.testing.assert_array_equal(outcome.snapshots[0], 0.5)
    np.testing.assert_array_equal(outcome.snapshots[6], outcome.images)
    (short,) = drive(steps=2, chunk=5)
    np.testing.assert_allclose(outcome.snapshots[2], short.images, rtol=1e-6)


def test_nan_in_the_last_step_is_an_error_too():
    algorithm, keys, model, problem = setup(optimizer=optimizers.sgd(1e39))
    with pytest.raises(FloatingPointError, match=r"up to 1 for objectives \[0\]"):
        list(core.drive(algorithm, keys, model, problem, steps=1, progress=False))


def test_a_chunk_that_is_told_to_end_leaves_the_others_alone():
    seen = []

    def watch(step, pictures, info):
        seen.append((step, len(pictures), info.score.shape))
        return len(pictures) == 2 and step == 4 and len(seen) < 4

    first, second, third = drive(watch=watch, every=2, chunk=2, width=1, snapshots=(2, 6))
    steps = (2, 2, (2, 2)), (4, 2, (2, 4))
    alone = (2, 1, (1, 2)), (4, 1, (1, 4)), (6, 1, (1, 6))
    assert seen == [*steps, *steps, (6, 2, (2, 6)), *alone]
    assert [outcome.info.score.shape for outcome in (first, second, third)] == [
        (2, 4),
        (2, 6),
        (1, 6),
    ]
    assert [list(outcome.snapshots) for outcome in (first, second)] == [[2], [2, 6]]
    np.testing.assert_array_equal(second.images, drive(chunk=2, width=1)[1].images)


def test_a_watched_run_that_was_interrupted_goes_on(monkeypatch, tmp_path):
    seen = []

    def watch(step, pictures, info):
        seen.append(step)

    options = {"watch": watch, "every": 2, "chunk": 5, "checkpoint": tmp_path}
    with monkeypatch.context() as patched:
        patched.setattr(core.runner, "tqdm", Interrupted(2))
        with pytest.raises(KeyboardInterrupt):
            drive(**options)
    resumed = drive(**options)
    np.testing.assert_array_equal(resumed[0].images, drive(chunk=5)[0].images)
    assert seen == [2, 4, 6]


class Interrupted:
    """A progress bar that presses Ctrl-C after some pieces."""

    def __init__(self, after):
        self.left = after

    def __call__(self, **options):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def update(self, count):
        if count:
            self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("after", "width"), [(0, 2), (1, 2), (3, 2), (3, 1)])
def test_ctrl_c_and_resume_give_the_unbroken_pictures(monkeypatch, tmp_path, after, width):
    whole = np.concatenate([o.images for o in drive(snapshots=(2,), chunk=2, width=width)])
    options = {"snapshots": (2,), "chunk": 2, "width": width, "checkpoint": tmp_path}
    with monkeypatch.context() as patched:
        patched.setattr(core.runner, "tqdm", Interrupted(after))
        with pytest.raises(KeyboardInterrupt):
            drive(**options)
    assert list(tmp_path.glob("chunk*.npz"))
    resumed = drive(**options)
    np.testing.assert_array_equal(np.concatenate([o.images for o in resumed]), whole)
    assert not tmp_path.exists()


def test_resuming_computes_only_what_is_missing(monkeypatch, tmp_path):
    with monkeypatch.context() as patched:
        patched.setattr(core.runner, "tqdm", Interrupted(1))
        with pytest.raises(KeyboardInterrupt):
            drive(snapshots=(2,), chunk=5, checkpoint=tmp_path)
    ran = []
    original = core.run

    def run(*args, **options):
        ran.append(options["steps"])
        return original(*args, **options)

    run.eval_shape = original.eval_shape
    monkeypatch.setattr(core.runner, "run", run)
    drive(snapshots=(2,), chunk=5, checkpoint=tmp_path)
    assert 0 < sum(ran) < 6


def test_a_checkpoint_of_other_work_is_refused(monkeypatch, tmp_path):
    with monkeypatch.context() as patched:
        patched.setattr(core.runner, "tqdm", Interrupted(1))
        with pytest.raises(KeyboardInterrupt):
            drive(snapshots=(2,), chunk=5, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="other arguments"):
        drive(snapshots=(2,), steps=8, chunk=5, checkpoint=tmp_path)


def test_nan_is_an_error_that_names_the_step():
    algorithm, keys, model, problem = setup(optimizer=optimizers.sgd(1e38))
    with pytest.raises(FloatingPointError, match="score: became NaN or infinite in steps"):
        list(core.drive(algorithm, keys, model, problem, steps=4, progress=False))


@pytest.mark.parametrize(
    ("woken", "steps", "moves"),
    # Two steps of the same score open it again, wherever it was to be opened at all.
    [(0, 4, 0), (1, 1, 1), (1, 2, 1), (1, 3, 2), (1, 4, 3), (2, 2, 2)],
)
def test_a_closed_relu_is_woken_at_first_and_where_the_score_stands_still(woken, steps, moves):
    model = toys.pointwise(bias=-99.0)
    spec = images.Pixel(model.input_shape, sd=0.0)
    algorithm = core.Ascent(spec, optimizers.sgd(1.0), woken=woken)
    keys = jax.random.split(jax.random.key(0), 1)
    problem = core.Problem(objectives.channel("relu", 0)).broadcast(1)
    state, _ = advance(algorithm, keys, model, problem, steps=steps)
    way = np.asarray(model.params["conv"])[:, 0] / np.prod(model.input_shape[:2])
    expected = np.broadcast_to(0.5 + moves * way, state.position.shape)
    np.testing.assert_allclose(state.position, expected, atol=1e-6)


def convolutions(model, layer):
    """How many convolutions the lowered text of one step has."""
    spec = images.Pixel(model.input_shape)
    algorithm = core.Ascent(spec, optimizers.adam())
    keys = jax.random.split(jax.random.key(0), 2)
    problem = core.Problem(objectives.channel(layer, 0)).broadcast(2)
    state = jax.eval_shape(core.init, algorithm, keys)
    with layers.as_written(True):
        lowered = core.run.lower(algorithm, keys, state, model, problem, steps=3)
    return lowered.as_text().count("stablehlo.convolution"), lowered.as_text()


@pytest.fixture(scope="module")
def resnet18():
    return rvis.load("resnet18", weights="random").replace(input_shape=(64, 64, 3))


# Convolutions of the prefix, each once forward and once back.
@pytest.mark.parametrize(
    ("layer", "forward"), [("conv1", 1), ("layer1.0", 3), ("layer2", 10), ("logits", 20)]
)
def test_an_early_layer_lowers_to_its_prefix_alone(resnet18, layer, forward):
    count, _ = convolutions(resnet18, layer)
    assert count == 2 * forward


def test_no_grouped_convolution_and_no_captured_weights(resnet18):
    _, text = convolutions(resnet18, "layer2")
    assert "feature_group_count = 1" in text
    assert "feature_group_count = 2" not in text
    assert max(map(len, text.splitlines())) < 1_000_000
