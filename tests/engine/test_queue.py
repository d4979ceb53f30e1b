"""The engine: one program, the same bits however examples are laid out, early ends, resumption."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import engine, objectives, optimizers, projections, regularizers, struct
from rvis.ascent import Problem
from rvis.engine import checkpoints, programs, queue
from rvis.kernels.threads import num_workers
from tests.test_ascent import SHAPE, climb, setup

STEPS = 6


@struct.dataclass
class Counting:
    """Adds its problem's rate and some noise until a limit is reached; tells the sum before."""

    noise: float = 1e-3

    def init(self, key, start):
        return jnp.float32(0) if start is None else start

    def step(self, key, state, model, problem):
        return state + problem["rate"] + self.noise * jax.random.normal(key, ()), state

    def finish(self, state, model, problem):
        return {"sum": state, "rate": problem["rate"]}


@struct.dataclass
class Stopping(Counting):
    """`Counting` that is done above 3."""

    def done(self, state):
        return state > 3

    def stopped(self, state):
        return {"sum": -state, "rate": jnp.float32(0)}


RATES = np.linspace(0.1, 2.0, 11).astype(np.float32)


def count(algorithm=None, rows=slice(None), **options):
    keys = jax.random.split(jax.random.key(7), len(RATES))[rows]
    options = {"steps": STEPS, "pixels": 8192, "progress": False, **options}
    algorithm = Counting() if algorithm is None else algorithm
    return engine.run(algorithm, None, {"rate": RATES[rows]}, keys, **options)


def expected(rate, number, steps):
    """The sum after some steps, by a plain loop."""
    key, state = jax.random.split(jax.random.key(7), len(RATES))[number], np.float32(0)
    for t in range(steps):
        state += rate + np.float32(1e-3) * jax.random.normal(jax.random.fold_in(key, t), ())
    return float(state)


def test_a_step_folds_its_number_into_the_examples_key():
    sums = [expected(rate, i, STEPS) for i, rate in enumerate(RATES)]
    np.testing.assert_allclose(count().result["sum"], sums, rtol=1e-6)
    np.testing.assert_array_equal(count().made, STEPS)


LAYOUTS = {
    "many rows": {"pixels": 1, "widest": 2},
    "chunks": {"chunk": 3},
    "one step a call": {"piece": 1},
    "other pieces": {"piece": 4},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_no_layout_changes_a_bit(layout):
    whole, other = count(), count(**layout)
    np.testing.assert_array_equal(other.result["sum"], whole.result["sum"])
    np.testing.assert_array_equal(other.info, whole.info)


@pytest.mark.parametrize("pixels", [1, 4096, 2**20])
def test_width_changes_rounding_alone(pixels):
    np.testing.assert_allclose(count(pixels=pixels).result["sum"], count().result["sum"], rtol=1e-6)


BESIDE = {**LAYOUTS, "side by side": {"pixels": 64, "piece": 4}}


@pytest.mark.parametrize("layout", BESIDE.values(), ids=BESIDE)
def test_examples_leave_when_they_are_done(layout):
    run = count(Stopping(), **layout)
    for i, rate in enumerate(RATES):
        sums = [expected(rate, i, t) for t in range(STEPS + 1)]
        steps = next((t for t, x in enumerate(sums) if x > 3), STEPS)
        assert run.made[i] == steps
        assert run.result["sum"][i] == pytest.approx(
            sums[steps] * (-1 if sums[steps] > 3 else 1), rel=1e-5
        )
        np.testing.assert_allclose(run.info[i, :steps], sums[:steps], rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(run.info[i, steps:], 0)


def test_an_example_that_is_done_from_the_start_makes_no_step():
    run = count(Stopping(), starts=np.full(len(RATES), 5, np.float32))
    np.testing.assert_array_equal(run.made, 0)
    np.testing.assert_array_equal(run.result["sum"], -5)


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_cores_change_no_bit(monkeypatch, cores):
    whole = climb(*setup(5), steps=STEPS)
    monkeypatch.setattr("rvis.kernels.threads.cores", lambda: cores)
    other = climb(*setup(5), steps=STEPS)
    np.testing.assert_array_equal(other.result, whole.result)
    np.testing.assert_array_equal(other.info.score, whole.info.score)


@pytest.mark.parametrize("number", range(5))
def test_the_batch_equals_its_members_one_by_one(number):
    algorithm, model, problem, keys = setup(5)
    whole = climb(algorithm, model, problem, keys)
    rows = slice(number, number + 1)
    alone = climb(algorithm, model, jax.tree.map(lambda leaf: leaf[rows], problem), keys[rows])
    np.testing.assert_array_equal(alone.result[0], whole.result[number])


def test_units_rates_radii_weights_and_numbers_of_steps_are_one_program():
    before = None
    for unit, rate, radius, weight, steps in ((0, 0.1, 0.2, 1.0, 64), (2, 1.0, 2.0, 0.0, 70)):
        ball = projections.L2Ball(jnp.full(SHAPE, 0.5), jnp.float32(radius))
        algorithm, model, _, keys = setup(optimizer=optimizers.adam(rate))
        objective = weight * objectives.channel("out", unit)
        penalties = (regularizers.total_variation(weight),)
        problem = Problem(objective, penalties, ball).broadcast(1)
        climb(algorithm, model, problem, keys, steps=steps)
        assert before in (None, programs.advance._cache_size())
        before = programs.advance._cache_size()


def test_snapshots_are_the_results_after_so_many_steps():
    run = climb(*setup(5), steps=STEPS, snapshots=(0, 2, 6))
    assert sorted(run.snapshots) == [0, 2, 6]
    np.testing.assert_array_equal(run.snapshots[0], 0.5)
    np.testing.assert_array_equal(run.snapshots[2], climb(*setup(5), steps=2).result)
    np.testing.assert_array_equal(run.snapshots[6], run.result)


def test_a_callback_sees_all_examples_and_may_end_the_run():
    shown = []

    def callback(step, results, info):
        shown.append((step, results["sum"].copy(), info.shape))
        return step == 4

    run = count(callback=callback, every=2)
    assert [(step, len(sums), shape) for step, sums, shape in shown] == [
        (2, 11, (11, 2)),
        (4, 11, (11, 4)),
    ]
    np.testing.assert_array_equal(run.result["sum"], shown[-1][1])
    np.testing.assert_array_equal(run.result["sum"], count(steps=4).result["sum"])
    np.testing.assert_array_equal(run.made, 4)


def test_a_callback_is_called_after_the_last_step_too():
    steps = []
    count(callback=lambda step, *_: steps.append(step), every=4)
    assert steps == [4, 6]


@pytest.mark.parametrize("steps", [1, 4])
def test_nan_is_an_error_that_names_the_examples(steps):
    algorithm, model, problem, keys = setup(2, optimizer=optimizers.sgd(1e39))
    with pytest.raises(FloatingPointError, match=r"NaN or infinite for objectives \[0, 1\]"):
        climb(algorithm, model, problem, keys, steps=steps)


def test_apply_is_a_batched_function():
    assert engine.apply(_double, None, {"x": RATES}, pixels=4096)["y"].tolist() == [
        *map(float, 2 * RATES)
    ]


def _double(model, problem):
    return {"y": 2 * problem["x"]}


def test_apply_names_what_is_not_finite_or_hands_it_back():
    numbers = {"x": np.float32([1, np.nan, 3])}
    with pytest.raises(FloatingPointError, match=r"model: finite numbers .* images \[1\]"):
        engine.apply(_double, None, numbers, pixels=1)
    assert np.isnan(engine.apply(_double, None, numbers, pixels=1, failure=None)["y"][1])


# Interruption


class Interrupted:
    """A progress bar that presses Ctrl-C after some turns."""

    def __init__(self, after):
        self.left, self.n = after, 0

    def __call__(self, **options):
        return self

    def close(self):
        pass

    def update(self, count):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.fixture
def interrupt(monkeypatch):
    """Presses Ctrl-C after so many turns of one piece each."""

    def pressed(after, call):
        with monkeypatch.context() as patched:
            patched.setattr(queue, "tqdm", Interrupted(after))
            patched.setattr(queue, "_TURN", 0)
            with pytest.raises(KeyboardInterrupt):
                call()

    return pressed


@pytest.mark.parametrize("after", [0, 1, 2, 3])
@pytest.mark.parametrize("algorithm", [Counting(), Stopping()], ids=["all steps", "done early"])
def test_an_interrupted_run_goes_on_to_the_same_bits(interrupt, tmp_path, after, algorithm):
    options = {"snapshots": (0, 2), "pixels": 2**20, "piece": 2}
    whole = count(algorithm, **options)
    folder = tmp_path / "state"
    interrupt(after, lambda: count(algorithm, checkpoint=folder, **options))
    assert (folder / "flight.npz").exists()
    again = count(algorithm, checkpoint=folder, **options)
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    assert not folder.exists()


def test_an_interrupted_run_goes_on_with_other_cores_and_chunks(interrupt, monkeypatch, tmp_path):
    options = {"snapshots": (2,), "pixels": 64, "piece": 2, "checkpoint": tmp_path / "state"}
    interrupt(1, lambda: count(**options))
    monkeypatch.setattr("rvis.kernels.threads.cores", lambda: 5)
    again = count(**{**options, "chunk": 1})
    np.testing.assert_array_equal(again.result["sum"], count().result["sum"])


def test_resuming_computes_only_what_is_missing(interrupt, monkeypatch, tmp_path):
    options = {"pixels": 2**20, "piece": 3, "checkpoint": tmp_path}
    interrupt(2, lambda: count(**options))
    pieces, advance = [], programs.advance

    @functools.wraps(advance)
    def counted(*arguments, **keywords):
        pieces.append(int(arguments[6]))
        return advance(*arguments, **keywords)

    counted.eval_shape = advance.eval_shape
    monkeypatch.setattr(programs, "advance", counted)
    count(**options)
    assert 0 < sum(pieces) <= STEPS * len(RATES) - 3 * min(2, num_workers()) * 3


@pytest.mark.parametrize(
    "change", [{"steps": 8}, {"snapshots": (2,)}, {"algorithm": Counting(2e-3)}], ids=str
)
def test_a_checkpoint_of_other_work_is_refused(interrupt, tmp_path, change):
    interrupt(1, lambda: count(piece=2, checkpoint=tmp_path))
    with pytest.raises(ValueError, match="checkpoint: .* other arguments"):
        count(piece=2, checkpoint=tmp_path, **change)


def test_runs_are_saved_now_and_then(monkeypatch, tmp_path):
    saved = []
    save = checkpoints.Folder.save
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(queue, "_TURN", 0)
    monkeypatch.setattr(
        checkpoints.Folder, "save", lambda self, *a: (saved.append(1), save(self, *a))
    )
    count(pixels=2**20, checkpoint=tmp_path / "state")
    assert len(saved) >= 2
    assert not (tmp_path / "state").exists()


def test_a_folder_in_use_is_refused(tmp_path):
    folder = checkpoints.Folder(tmp_path, "one")
    with pytest.raises(ValueError, match=r"checkpoint: .* in use by another run"):
        count(checkpoint=tmp_path)
    folder.close()
    count(checkpoint=tmp_path)
