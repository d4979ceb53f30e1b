"""Shapley values: worked games, the axioms, sampling against the exact, images, interruption."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import objectives, struct
from rvis.analysis.questions import baselines
from rvis.attribution import coalitions, shapley, shapley_sampling
from rvis.engine import programs, queue
from tests import toys

QUIET = {"progress": False}
BOTH = [shapley, shapley_sampling]
WEIGHTS = np.random.default_rng(1).standard_normal((48, 3)).astype(np.float32)
LINEAR = toys.linear(WEIGHTS, (4, 4, 3))
IMAGES = np.random.default_rng(2).random((3, 4, 4, 3)).astype(np.float32)


def lecture(s):
    return jnp.where(s.all(-1), 2.5, s.sum(-1))


@struct.dataclass
class Table:
    """Any game, as the values of its coalitions."""

    values: jax.Array

    def __call__(self, s):
        return self.values[(s << jnp.arange(s.shape[1])).sum(1)]


@struct.dataclass
class Pairwise:
    """Σ aᵢ + Σ bᵢⱼ over the members."""

    single: jax.Array
    pair: jax.Array

    def __call__(self, s):
        s = s.astype(jnp.float32)
        return s @ self.single + jnp.einsum("mi,ij,mj->m", s, jnp.triu(self.pair, 1), s)


def table(players, seed=0, columns=()):
    values = np.random.default_rng(seed).standard_normal((2**players, *columns))
    return Table(jnp.asarray(values, jnp.float32))


def by_definition(values, players):
    """The mean over all orders, one by one."""
    import itertools

    total = np.zeros((players, *values.shape[1:]))
    orders = list(itertools.permutations(range(players)))
    for order in orders:
        members = 0
        for player in order:
            total[player] += values[members | 1 << player] - values[members]
            members |= 1 << player
    return total / len(orders)


@pytest.mark.parametrize("solve", BOTH)
def test_the_lecture_example(solve):
    np.testing.assert_array_equal(solve(lecture, players=2, **QUIET).values, [1.25, 1.25])


@pytest.mark.parametrize("players", [1, 2, 3, 5])
def test_exact_values_are_the_mean_over_all_orders(players):
    game = table(players, columns=(2,))
    found = shapley(game, players=players, **QUIET)
    expected = by_definition(np.asarray(game.values, np.float64), players)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    assert found.calls == 2**players


@pytest.mark.parametrize("seed", range(4))
def test_sampled_values_agree_with_exact_ones_within_their_errors(seed):
    game = table(6, seed)
    exact = shapley(game, players=6, **QUIET)
    found = shapley_sampling(game, players=6, permutations=2000, key=seed, **QUIET)
    z = (found.values - exact.values) / found.errors
    assert np.abs(z).max() < 4.5
    assert np.sqrt(np.square(z).mean()) > 0.1


@pytest.mark.parametrize("solve", BOTH)
def test_efficiency_holds_to_rounding(solve):
    game = table(7)
    found = solve(game, players=7, **QUIET)
    whole = float(game.values[-1]) - float(game.values[0])
    assert found.values.sum() == pytest.approx(whole, abs=1e-12)
    assert abs(found.gap) < 1e-12


@pytest.mark.parametrize("solve", BOTH)
def test_a_dummy_player_gets_nothing(solve):
    values = np.random.default_rng(0).standard_normal(16)
    game = Table(jnp.asarray(np.concatenate([values, values]), jnp.float32))
    assert solve(game, players=5, **QUIET).values[4] == 0


def test_players_that_can_be_exchanged_get_the_same():
    values = np.random.default_rng(0).standard_normal(32)
    members = np.arange(32)
    exchanged = members & ~3 | (members & 1) << 1 | (members & 2) >> 1
    game = Table(jnp.asarray(values + values[exchanged], jnp.float32))
    found = shapley(game, players=5, **QUIET).values
    assert found[0] == pytest.approx(found[1], abs=1e-7)


@pytest.mark.parametrize("solve", BOTH)
def test_values_are_linear_in_the_game(solve):
    one, two = table(5, 1), table(5, 2)
    both = Table(3 * one.values - two.values)
    first, second, sum_ = (solve(g, players=5, **QUIET).values for g in (one, two, both))
    np.testing.assert_allclose(sum_, 3 * first - second, atol=1e-5)


def test_a_permutation_and_its_reverse_are_exact_for_pairwise_games():
    rng = np.random.default_rng(0)
    single, pair = rng.standard_normal(12), rng.standard_normal((12, 12))
    game = Pairwise(jnp.asarray(single, jnp.float32), jnp.asarray(pair, jnp.float32))
    upper = np.triu(pair, 1)
    expected = single + (upper.sum(0) + upper.sum(1)) / 2
    found = shapley_sampling(game, players=12, permutations=2, **QUIET)
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert np.isnan(found.errors).all()


def test_the_error_falls_as_the_root_of_the_permutations():
    game = table(8)
    exact = shapley(game, players=8, **QUIET).values
    wrong, told = [], []
    for permutations in (64, 1024):
        runs = [
            shapley_sampling(game, players=8, permutations=permutations, key=k, **QUIET)
            for k in range(8)
        ]
        wrong.append(np.sqrt(np.mean([np.square(run.values - exact) for run in runs])))
        told.append(np.sqrt(np.mean([np.square(run.errors) for run in runs])))
    assert told[0] / told[1] == pytest.approx(4, rel=0.15)
    assert wrong[0] / wrong[1] == pytest.approx(4, rel=0.4)
    np.testing.assert_allclose(wrong, told, rtol=0.3)


def test_games_that_differ_in_numbers_share_a_program():
    programs.advance.clear_cache()
    for seed in range(3):
        shapley(table(5, seed), players=5, **QUIET)
        shapley_sampling(
            table(5, seed), players=5, permutations=34 + 2 * (seed % 2), key=seed, **QUIET
        )
    # All coalitions, and pairs of permutations.
    assert programs.advance._cache_size() == 2


def test_a_game_sees_the_context_of_its_caller():
    seen = []

    def game(coalitions):
        seen.append(jax.config.jax_default_matmul_precision)
        return coalitions.sum(-1)

    with jax.default_matmul_precision("float32"):
        shapley(game, players=3, **QUIET)
    assert set(seen) == {"float32"}


# Images


@pytest.mark.parametrize("solve", BOTH)
@pytest.mark.parametrize("baseline", [0.25, "mean", "blur", "image", "batch"])
def test_linear_models_have_closed_forms(solve, baseline):
    batch = np.random.default_rng(3).random((5, 4, 4, 3)).astype(np.float32)
    given = {"image": batch[0], "batch": batch}.get(baseline, baseline)
    permutations = {} if solve is shapley else {"permutations": 4000 if baseline == "batch" else 4}
    found = solve(LINEAR, IMAGES[:1], 1, players=2, baseline=given, **permutations, **QUIET)
    if baseline == "blur":
        absent = baselines("blur", IMAGES[:1])[0, 0]
        assert absent.std() < 0.8 * IMAGES[0].std()
    else:
        absent = {
            0.25: np.full((4, 4, 3), 0.25),
            "mean": IMAGES[0].mean((0, 1)),
            "image": batch[0],
            "batch": batch.mean(0),
        }[baseline]
    change = (IMAGES[0] - absent) * WEIGHTS[:, 1].reshape(4, 4, 3)
    expected = change.reshape(2, 2, 2, 2, 3).sum((1, 3, 4)).ravel()
    sampled = baseline == "batch" and solve is shapley_sampling
    tolerance = 5 * found.errors[0].max() if sampled else 1e-5
    np.testing.assert_allclose(found.values[0], expected, atol=tolerance)
    np.testing.assert_allclose(found.maps[0].sum(), found.values[0].sum(), rtol=1e-4, atol=1e-5)
    assert abs(found.gap[0]) < 1e-12


def test_segments_may_have_any_shape_and_numbers():
    segments = np.full((4, 4), 70)
    segments[1:3, 1:3] = -2
    found = shapley(LINEAR, IMAGES[0], 0, players=segments, baseline=0.0, **QUIET)
    change = IMAGES[0] * WEIGHTS[:, 0].reshape(4, 4, 3)
    inner = change[1:3, 1:3].sum()
    np.testing.assert_allclose(found.values, [inner, change.sum() - inner], rtol=1e-4)
    np.testing.assert_allclose(found.maps[1:3, 1:3], inner / 4, rtol=1e-4)


def test_patches_at_the_edge_are_cut():
    found = shapley(LINEAR, IMAGES[0], 0, players=3, baseline=0.0, **QUIET)
    change = (IMAGES[0] * WEIGHTS[:, 0].reshape(4, 4, 3)).sum(-1)
    expected = [change[:3, :3].sum(), change[:3, 3].sum(), change[3, :3].sum(), change[3, 3]]
    np.testing.assert_allclose(found.values, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("solve", BOTH)
def test_an_image_has_the_same_bits_alone_in_a_batch_and_in_any_chunk(solve):
    model = toys.pointwise(size=(4, 4))
    whole = solve(model, IMAGES, [0, 1, 1], players=2, **QUIET)
    for i, label in enumerate([0, 1, 1]):
        alone = solve(model, IMAGES[i], label, players=2, chunk=1, **QUIET)
        np.testing.assert_array_equal(alone.values, whole.values[i])
        np.testing.assert_array_equal(alone.errors, whole.errors[i])


@pytest.mark.parametrize("solve", BOTH)
def test_cores_change_no_value(monkeypatch, solve):
    model = toys.pointwise(size=(4, 4))
    found = []
    for cores in (1, 2, 3):
        monkeypatch.setattr("rvis.kernels.threads.cores", lambda cores=cores: cores)
        found.append(solve(model, IMAGES, [0, 1, 1], players=2, chunk=16, **QUIET).values)
    for values in found[1:]:
        np.testing.assert_array_equal(values, found[0])


def test_the_class_loss_is_a_target():
    model = toys.pointwise(size=(4, 4))
    loss = -objectives.probability([0, 1, 1])
    found = shapley(model, IMAGES, loss, players=2, baseline=0.0, **QUIET)
    logits = model(np.concatenate([IMAGES, np.zeros_like(IMAGES)])).reshape(2, 3, 2)
    terms = -jax.nn.log_softmax(logits)[:, jnp.arange(3), jnp.array([0, 1, 1])]
    np.testing.assert_allclose(found.values.sum(1), terms[0] - terms[1], atol=1e-5)
    np.testing.assert_allclose(found.scores, terms[0], atol=1e-5)


def test_any_layer_is_a_target():
    model = toys.pointwise(size=(4, 4))
    target = objectives.channel("relu", 2)
    found = shapley(model, IMAGES, target, players=2, baseline=0.0, **QUIET)
    record = rvis.record(model, IMAGES, "relu")["relu"][..., 2].mean((1, 2))
    np.testing.assert_allclose(found.scores, record, rtol=1e-5)


def test_a_tolerance_ends_each_image_by_itself():
    model = toys.pointwise(size=(4, 4), bias=-0.5)
    images = np.stack([np.zeros((4, 4, 3), np.float32), IMAGES[0], 0.2 * IMAGES[1]])
    target = objectives.probability(0)  # not additive over places
    options = {"players": 1, "baseline": IMAGES, "permutations": 4096, **QUIET}
    first = shapley_sampling(model, images, target, **{**options, "permutations": 32})
    limit = float(np.median(first.errors.max(1)))
    found = shapley_sampling(model, images, target, tolerance=1.001 * limit, **options)
    assert (found.errors <= 1.01 * limit).all()
    assert found.permutations.min() == 32
    assert found.permutations.max() > 32
    assert (found.permutations % 16 == 0).all()
    for i in range(3):
        alone = shapley_sampling(model, images[i], target, tolerance=1.001 * limit, **options)
        assert alone.permutations == found.permutations[i]
        np.testing.assert_array_equal(alone.values, found.values[i])


def any_present(s):
    """Each of 64 players is worth 1/64, by being the first of all in one permutation of 64."""
    return s.any(-1).astype(jnp.float32)


@pytest.mark.parametrize("stop", [{"tolerance": 0.1}, {"permutations": 128}], ids=str)
def test_intervals_hold_what_is_seldom_seen(stop):
    inside = []
    for key in range(20):
        found = shapley_sampling(any_present, players=64, key=key, **stop, **QUIET)
        low, high = found.intervals()
        inside.append((low <= 1 / 64) & (high >= 1 / 64))
        assert (found.errors > 0).all()
        assert found.permutations >= 32
    assert np.mean(inside) >= 0.9


@pytest.mark.parametrize("permutations", [8, 32])
def test_intervals_hold_the_values_of_random_games(permutations):
    inside = []
    for seed in range(25):
        game = table(6, seed)
        exact = shapley(game, players=6, **QUIET).values
        found = shapley_sampling(game, players=6, permutations=permutations, key=seed, **QUIET)
        low, high = found.intervals()
        inside.append((low <= exact) & (high >= exact))
    assert 0.9 <= np.mean(inside)
    wide = np.ptp(found.intervals(0.99), axis=0) / np.ptp(found.intervals(0.8), axis=0)
    assert (wide > 1.9).all()


def test_intervals_of_exact_values_are_points():
    found = shapley(table(3), players=3, **QUIET)
    np.testing.assert_array_equal(found.intervals(), [found.values, found.values])
    with pytest.raises(ValueError, match="level"):
        found.intervals(1.0)


def test_errors_are_those_of_many_pairs():
    """Where all players' variances differ and pairs are many, nothing is mixed."""
    rng = np.random.default_rng(0)
    sizes = np.array([0.1, 1.0, 10.0])
    shares = sizes * rng.standard_normal((4000, 3))
    away = shares - shares[0]
    sums = [(away**power).sum(0) for power in (1, 2, 3, 4)]
    found = coalitions.standard_errors(np, 4000, sums)
    np.testing.assert_allclose(found[1:], shares.std(0, ddof=1)[1:] / 4000**0.5, rtol=0.02)
    mixed = coalitions.standard_errors(jnp, jnp.float32(4000), jnp.asarray(np.stack(sums)))
    np.testing.assert_allclose(mixed, found, rtol=2e-3)


def test_a_callback_sees_the_values_and_may_end_them():
    game, seen = table(5), []

    def watch(step, values, full):
        seen.append((step, values, full))
        return step == 12

    found = shapley_sampling(game, players=5, callback=watch, **QUIET)
    assert [step for step, _, _ in seen] == [2, 4, 6, 8, 10, 12]
    assert found.permutations == 12
    np.testing.assert_array_equal(seen[-1][1], found.values)
    assert seen[-1][2] == float(game.values[-1])
    same = shapley_sampling(game, players=5, permutations=12, **QUIET)
    np.testing.assert_array_equal(same.values, found.values)


def test_calls_count_the_images_asked_about():
    found = shapley_sampling(LINEAR, IMAGES, 0, players=2, permutations=6, **QUIET)
    assert found.calls.tolist() == [6 * 4] * 3
    drawn = shapley_sampling(LINEAR, IMAGES, 0, players=2, permutations=6, baseline=IMAGES, **QUIET)
    assert drawn.calls.tolist() == [6 * 4] * 3


@pytest.mark.parametrize("solve", [*BOTH, partial(shapley_sampling, tolerance=1e-9)])
def test_interrupted_work_goes_on(solve, interrupt, tmp_path):
    folder = tmp_path / "state"
    options = {"players": 2, "baseline": IMAGES, **QUIET}
    options |= {} if solve is shapley else {"permutations": 32, "key": 5}
    expected = solve(LINEAR, IMAGES, 0, **options)
    # The ends are a turn of their own.
    after = 0 if solve is shapley else 5
    interrupt(after, "Shapley", lambda: solve(LINEAR, IMAGES, 0, checkpoint=folder, **options))
    assert (folder / "flight.npz").exists()
    with pytest.raises(ValueError, match="checkpoint"):
        solve(LINEAR, IMAGES, 0, checkpoint=folder, **{**options, "baseline": IMAGES[:2]})
    found = solve(LINEAR, IMAGES, 0, checkpoint=folder, **options)
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.errors, expected.errors)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"players": 1, "model": toys.pointwise()}, ValueError, "players: at most 16"),
        ({"players": 0}, ValueError, "players"),
        ({"players": 5}, ValueError, "players"),
        ({"players": 2.0}, TypeError, "players"),
        ({"players": np.zeros((3, 4), int)}, ValueError, r"players: .*\(3, 4\)"),
        ({"baseline": "blurr"}, ValueError, "baseline: .*'blur'"),
        ({"baseline": np.zeros((2, 2, 3), np.float32)}, ValueError, "baseline"),
        ({"target": 3}, ValueError, "target"),
        ({"target": [0, 1]}, ValueError, "target"),
        ({"target": "cat"}, ValueError, "target"),
        ({"target": None}, TypeError, "target"),
        ({"chunk": 0}, ValueError, "chunk"),
        ({"images": IMAGES + 2}, ValueError, "images"),
    ],
)
def test_bad_arguments_are_named(options, error, match, monkeypatch):
    monkeypatch.setattr(queue, "stream", lambda *a, **k: pytest.fail("it ran"))
    options = {"model": LINEAR, "target": 0, "players": 2, **options}
    model = options.pop("model")
    images = options.pop("images", np.zeros((3, *model.input_shape), np.float32))
    with pytest.raises(error, match=match):
        shapley(model, images, options.pop("target"), **options, **QUIET)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"permutations": 3}, ValueError, "permutations"),
        ({"permutations": 0}, ValueError, "permutations"),
        ({"tolerance": 0.0}, ValueError, "tolerance"),
        ({"key": "a"}, TypeError, "key"),
        ({"players": 2.5}, TypeError, "players"),
        ({"model": 3}, TypeError, "model"),
        ({"model": lambda s: jnp.zeros(3)}, ValueError, "model"),
        ({"images": IMAGES}, TypeError, "model"),
    ],
)
def test_bad_games_are_named(options, error, match, monkeypatch):
    monkeypatch.setattr(queue, "stream", lambda *a, **k: pytest.fail("it ran"))
    options = {"model": lecture, "players": 2, **options}
    with pytest.raises(error, match=match):
        shapley_sampling(options.pop("model"), **options, **QUIET)


def test_a_value_that_is_not_finite_is_refused():
    with pytest.raises(FloatingPointError, match="target"):
        shapley(lambda s: jnp.where(s.all(-1), jnp.nan, 0.0), players=2, **QUIET)
