"""Evolution: operators against their formulas, graphs against plain NumPy, elites that never fall."""

from __future__ import annotations

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import rvis
from rvis import engine, evolve, objectives
from rvis.ascent import Problem
from rvis.engine import checkpoints, programs
from rvis.evolve import cppn, elites
from rvis.evolve.direct import polynomial
from scripts import evolve as script

SHAPE = (6, 8, 3)
# Pieces of three generations in every test, so that all share their programs.
RUN = {"generations": 6, "batch_size": 10, "snapshots": (3, 6), "progress": False}


@pytest.fixture(scope="module")
def model():
    return toys.pointwise()


@pytest.fixture(scope="module", params=["direct", "cppn"])
def found(model, request):
    return evolve.map_elites(model, encoding=request.param, **RUN)


@pytest.fixture(scope="module", params=[1, 3])
def grown(request):
    """An encoding and 40 genomes of it after 60 mutations."""
    encoding = evolve.CPPN((5, 7, request.param), hidden=9)

    def lineage(key):
        def body(genome, key):
            return encoding.mutate(key, genome), None

        first, rest = jax.random.split(key)
        return jax.lax.scan(body, encoding.init(first), jax.random.split(rest, 60))[0]

    return encoding, jax.jit(jax.vmap(lineage))(jax.random.split(jax.random.key(0), 40))


@jax.jit
def mutated(encoding, key):
    """A first genome and its mutant; one program for all rates."""
    first, second = jax.random.split(key)
    genome = encoding.init(first)
    return genome, encoding.mutate(second, genome)


@jax.jit
def crossed(encoding, key, one, other):
    return encoding.cross(key, one, other)


def one(genomes, i):
    return jax.tree.map(lambda leaf: np.asarray(leaf[i]), genomes)


def drawn_by_recursion(encoding, genome):
    """The picture of one genome, pixel by pixel and node by node."""
    functions = (
        np.sin,
        lambda x: 2 / (1 + np.exp(-x)) - 1,
        lambda x: np.exp(-(x**2)),
        lambda x: np.clip(x, -3, 3) / 3,
    )
    height, width, channels = encoding.shape
    picture = np.zeros(encoding.shape)
    for i, j in np.ndindex(height, width):
        y, x = 2 * i / (height - 1) - 1, 2 * j / (width - 1) - 1
        inputs = (x, y, np.hypot(x, y), 1.0)

        def value(node, inputs=inputs):
            if node < cppn.INPUTS:
                return inputs[node]
            parents = np.flatnonzero(genome.linked[:, node])
            total = sum(genome.weights[p, node] * value(p) for p in parents)
            return functions[genome.kinds[node]](np.float64(total))

        out = [abs(value(cppn.INPUTS + c)) for c in range(channels)]
        picture[i, j] = out if channels == 1 else colorsys.hls_to_rgb(*out)
    return picture


def test_polynomial_mutation_has_its_distribution():
    draw = jax.random.uniform(jax.random.key(0), (20000,))
    step = np.asarray(polynomial(draw, jnp.full(20000, 0.5), 15.0)) - 0.5
    for length in (0.02, 0.05, 0.1):
        assert (np.abs(step) < length).mean() == pytest.approx(1 - (1 - length) ** 16, abs=0.01)
    assert (step > 0).mean() == pytest.approx(0.5, abs=0.01)


def test_simulated_binary_crossover_has_its_distribution():
    # Far from the ends of the range the spread β has P(β ≤ 1) = 1/2, P(β ≤ b) = b^(η+1)/2 below.
    encoding = evolve.Direct((100, 100, 1), crossover=1.0, eta_crossover=10.0)
    a, b = jnp.full(encoding.shape, 0.49), jnp.full(encoding.shape, 0.51)
    one, other = map(np.asarray, crossed(encoding, jax.random.key(0), a, b))
    np.testing.assert_allclose(one + other, 1, atol=1e-5)
    spread = np.abs(one - other) / 0.02
    assert (spread <= 1).mean() == pytest.approx(0.5, abs=0.02)
    assert (spread <= 0.9).mean() == pytest.approx(0.9**11 / 2, abs=0.02)
    assert (one > other).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("rates", [{"crossover": 0.0}, {"crossover": 1.0, "eta_crossover": 1e6}])
def test_children_are_copies_where_nothing_is_crossed(rates):
    encoding = evolve.Direct((4, 4, 1), **rates)
    a, b = (encoding.init(jax.random.key(i)) for i in range(2))
    found = np.stack(crossed(encoding, jax.random.key(2), a, b))
    np.testing.assert_allclose(np.sort(found, 0), np.sort(np.stack([a, b]), 0), atol=1e-4)


def test_mutation_changes_the_share_of_genes_asked_for():
    encoding = evolve.Direct((100, 100, 1), mutation=0.1)
    before, after = map(np.asarray, mutated(encoding, jax.random.key(0)))
    assert (before != after).mean() == pytest.approx(0.1, abs=0.01)


def test_graphs_draw_what_plain_recursion_draws(grown):
    encoding, genomes = grown
    pictures = np.asarray(jax.jit(jax.vmap(encoding.picture))(genomes))
    for i in range(6):
        np.testing.assert_allclose(
            pictures[i], drawn_by_recursion(encoding, one(genomes, i)), atol=2e-4
        )


def test_graphs_stay_lawful(grown):
    encoding, genomes = grown
    genomes = jax.tree.map(np.asarray, genomes)
    outputs = slice(cppn.INPUTS, cppn.INPUTS + encoding.shape[2])
    assert not np.diagonal(np.asarray(jax.vmap(cppn.ancestors)(genomes.linked)), 0, 1, 2).any()
    assert not genomes.linked[:, :, : cppn.INPUTS].any()
    assert not genomes.linked[:, outputs].any()
    assert not genomes.linked[~genomes.alive].any()
    assert not genomes.linked.swapaxes(1, 2)[~genomes.alive].any()
    assert genomes.alive[:, : outputs.stop].all()
    assert np.abs(genomes.weights).max() <= 10
    assert genomes.alive.sum(1).max() == encoding.nodes  # and some had no room left


def test_ancestors_of_a_chain_and_a_fork():
    linked = np.zeros((5, 5), bool)
    linked[0, 1] = linked[1, 2] = linked[2, 3] = linked[1, 4] = True
    reach = np.zeros((5, 5), bool)
    reach[0, 1:] = reach[1, 2:] = reach[2, 3] = True
    np.testing.assert_array_equal(cppn.ancestors(jnp.asarray(linked)), reach)


@pytest.mark.parametrize(
    ("rate", "nodes", "links"),
    [
        ("add_connection", 0, 0),  # the first network has all that it can have
        ("drop_connection", 0, -1),
        ("add_node", 1, 1),
        ("drop_node", 0, 0),
        ("change_weights", 0, 0),
    ],
)
def test_each_operator_does_its_own(rate, nodes, links):
    names = ("add_connection", "drop_connection", "add_node", "drop_node", "change_weights")
    encoding = evolve.CPPN((4, 4, 1), **{name: float(name == rate) for name in names})
    before, after = mutated(encoding, jax.random.key(0))
    assert int(after.alive.sum() - before.alive.sum()) == nodes
    assert int(after.linked.sum() - before.linked.sum()) == links
    changed = np.asarray((after.weights != before.weights) & before.linked)
    assert changed.any() == (rate == "change_weights") or changed.sum() == 0


def test_a_new_node_takes_the_place_of_a_connection():
    rates = dict.fromkeys(("add_connection", "drop_connection", "drop_node", "change_weights"), 0.0)
    encoding = evolve.CPPN((4, 4, 1), add_node=1.0, **rates)
    before, after = mutated(encoding, jax.random.key(0))
    [lost] = np.argwhere(np.asarray(before.linked & ~after.linked))
    gained = np.argwhere(np.asarray(after.linked & ~before.linked))
    new = cppn.INPUTS + 1
    assert gained.tolist() == [[lost[0], new], [new, lost[1]]]
    assert after.weights[lost[0], new] == after.weights[new, lost[1]] == before.weights[*lost]


def test_each_child_is_tried_in_every_cell_and_ties_stay():
    # Logits are the pixels themselves: the picture's argmax is its class.
    model = toys.linear(np.eye(3), (1, 3, 1))
    algorithm = elites.MapElites(evolve.Direct((1, 3, 1)), cells=3, batch_size=4)
    children = jnp.asarray([[0.9, 0.8, 0.1], [0.1, 0.2, 0.1], [0.5, 0.5, 0.5], [0.9, 0.8, 0.1]])
    children = children.reshape(4, 1, 3, 1)
    state = algorithm.init(jax.random.key(0), children)
    problem = Problem(objectives.probability(range(3)))
    step = jax.jit(elites.MapElites.step)
    after, info = step(algorithm, jax.random.key(0), state, model, problem)
    share = np.asarray(jax.nn.log_softmax(children.reshape(4, 3)))
    np.testing.assert_allclose(info.fitness, share.max(0), rtol=1e-6)
    np.testing.assert_array_equal(after.genomes, children[share.argmax(0)])
    state = after.replace(children=children[::-1])
    again, _ = step(algorithm, jax.random.key(0), state, model, problem)
    np.testing.assert_array_equal(again.genomes, after.genomes)


def test_fitness_never_falls_and_rises(found):
    assert (np.diff(found.scores, axis=1) >= 0).all()
    assert (found.scores[:, -1] > found.scores[:, 0]).any()


def test_elites_score_again_what_they_scored(found, model):
    # The elites as the first children of another run: of the same program, to the bit.
    again = elites.MapElites(found.encoding, 2, RUN["batch_size"], RUN["batch_size"])
    told = engine.run(
        again,
        model,
        Problem(jax.tree.map(lambda x: x[None], objectives.probability([0, 1]))),
        jax.random.key(7)[None],
        steps=3,
        pixels=RUN["batch_size"] * SHAPE[0] * SHAPE[1],
        starts=jax.tree.map(lambda x: np.resize(x, (1, 10, *x.shape[1:])), found.genomes),
        progress=False,
    )
    scores = np.exp(np.asarray(told.info.fitness[0, 0], np.float64))
    np.testing.assert_array_equal(scores, found.confidences)
    shown = np.asarray(jax.nn.softmax(model(found.images)))[np.arange(2), found.classes]
    np.testing.assert_allclose(shown, found.confidences, rtol=1e-5)


def test_the_last_snapshot_is_the_result(found):
    assert list(found.snapshots) == [3, 6]
    np.testing.assert_array_equal(found.snapshots[6], found.images)


def test_results_are_shown_and_saved(found, tmp_path):
    assert found.labels.tolist() == ["c0", "c1"]
    assert found.show().width > 100
    names = {path.name for path in found.save(tmp_path).iterdir()}
    assert names == {"arrays.npz", "card.json", "figure.png", "images"}


def test_the_same_key_gives_the_same_bits(model):
    a, b, c = (evolve.map_elites(model, key=key, **RUN).images for key in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_one_program_serves_all_keys_rates_classes_and_weights(model):
    def runs(**changes):
        spec = evolve.Direct(SHAPE, **changes.pop("rates", {}))
        return evolve.map_elites(changes.pop("model", model), encoding=spec, **{**RUN, **changes})

    runs()
    before = programs.advance._cache_size()
    runs(key=5)
    runs(rates={"mutation": 0.4, "eta_crossover": 3.0})
    runs(target=[1, "c0"])
    runs(model=model.replace(params=jax.tree.map(jnp.negative, model.params), name="other"))
    assert programs.advance._cache_size() == before


def test_chosen_classes_are_the_cells(model):
    found = evolve.map_elites(model, "c1", **RUN)
    assert found.images.shape == (1, *SHAPE)
    assert found.labels.tolist() == ["c1"]


# A graph's genome is a tree of leaves of several kinds, a direct one a leaf.
@pytest.mark.parametrize("encoding", [pytest.param("direct", marks=pytest.mark.slow), "cppn"])
def test_an_interrupted_run_goes_on_to_the_same_bits(model, encoding, tmp_path, monkeypatch):
    options = {**RUN, "encoding": encoding}
    whole = evolve.map_elites(model, **options)
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    seen = []

    def breaking(generation, images, scores):
        seen.append((generation, images.shape, scores.shape))
        if generation == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evolve.map_elites(model, checkpoint=tmp_path / "state", callback=breaking, **options)
    assert seen == [(i, (2, *SHAPE), (2, i)) for i in range(1, 5)]
    assert (tmp_path / "state" / "flight.npz").exists()
    resumed = evolve.map_elites(model, checkpoint=tmp_path / "state", **options)
    np.testing.assert_array_equal(whole.images, resumed.images)
    np.testing.assert_array_equal(whole.scores, resumed.scores)
    np.testing.assert_array_equal(whole.snapshots[3], resumed.snapshots[3])
    assert not (tmp_path / "state").exists()


def test_graphs_can_be_drawn_at_any_size(model):
    found = evolve.map_elites(model, encoding="cppn", **RUN)
    np.testing.assert_allclose(found.drawn(SHAPE[:2]), found.images, atol=1e-5)
    # The outermost pixels stay at ±1, so every second place of 11 × 15 is one of 6 × 8.
    np.testing.assert_allclose(found.drawn((11, 15))[:, ::2, ::2], found.images, atol=1e-3)
    with pytest.raises(ValueError, match="encoding"):
        evolve.map_elites(model, **RUN).drawn(20)


def test_roughness_of_noise_waves_and_nothing():
    noise = np.random.default_rng(0).random((4, 64, 64, 1))
    # The corners beyond a circle of radius 1/4 in a square of side 1.
    np.testing.assert_allclose(evolve.roughness(noise), 1 - np.pi / 16, atol=0.02)
    x = np.arange(64)
    wave = np.stack([0.5 + 0.5 * np.sin(2 * np.pi * x / period) for period in (16, 2.5)])
    pictures = np.broadcast_to(wave[:, None, :, None], (2, 64, 64, 1))
    np.testing.assert_allclose(evolve.roughness(pictures), [0, 1], atol=0.05)
    np.testing.assert_array_equal(evolve.roughness(np.full((1, 9, 9, 3), 0.3)), 0)


@pytest.mark.slow
def test_elites_of_a_digit_network_are_what_the_paper_says():
    model = rvis.load("mnist_cnn")
    options = {"generations": 10, "batch_size": 40, "progress": False}
    noise, regular = (
        evolve.map_elites(model, encoding=encoding, **options) for encoding in ("direct", "cppn")
    )
    assert np.median(regular.confidences) > 0.9
    assert np.median(regular.confidences) > np.median(noise.confidences)
    assert np.median(evolve.roughness(regular.images)) < 0.4 < evolve.roughness(noise.images).min()


def test_the_script_writes_grids_and_curves(tmp_path, capsys):
    words = f"mnist_cnn --generations 4 --batch-size 8 --quiet --out {tmp_path}"
    assert script.main(words.split()) == 0
    assert "| mnist_cnn | cppn |" in capsys.readouterr().out
    for name in ("curves.png", "mnist_cnn_direct/figure.png", "mnist_cnn_cppn/card.json"):
        assert (tmp_path / name).exists()
    assert script.main(["mnist_cnn", "--batch-size", "3", "--quiet", "--out", str(tmp_path)]) == 2
    assert "batch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"encoding": "cpn"}, "encoding.*'cppn'"),
        ({"encoding": evolve.Direct((5, 5, 3))}, "encoding"),
        ({"encoding": evolve.Direct(SHAPE, mutation=1.5)}, "mutation"),
        ({"encoding": evolve.CPPN(SHAPE, hidden=0)}, "hidden"),
        ({"encoding": evolve.Direct(SHAPE, eta_mutation=-1.0)}, "eta_mutation"),
        ({"generations": 0}, "generations"),
        ({"batch_size": 7}, "batch_size.*even"),
        ({"target": [0, 2]}, "target.*2"),
        ({"target": ["c1", 1]}, "target.*different"),
        ({"snapshots": (9,)}, "snapshots.*9"),
        ({"size": (0, 5)}, "size"),
    ],
)
def test_bad_arguments_are_named(model, arguments, name):
    with pytest.raises(ValueError, match=name):
        evolve.map_elites(model, **{**RUN, **arguments})


def test_an_encoding_must_be_one(model):
    with pytest.raises(TypeError, match="encoding"):
        evolve.map_elites(model, encoding=3, **RUN)
