"""Texture and style: Gram matrices, colours, pooling, and what a climb must do."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import rvis
from rvis import engine, objectives, style
from rvis.engine import programs
from rvis.models import taps
from rvis.models.families.vgg import VGG
from rvis.style import colours, tiles
from rvis.style.layers import contents, defaults, pooled, terms, textures
from tests.interrupts import interrupted

RNG = np.random.default_rng(0)
CONTENT, STYLE, OTHER = RNG.uniform(0.2, 0.8, (3, 6, 8, 3)).astype(np.float32)
ON_TOY = {"content_layers": "relu", "style_layers": ["conv", "relu"], "progress": False}


@pytest.fixture(scope="module")
def model():
    return toys.pointwise(bias=0.2)


def gram64(activations):
    flat = np.asarray(activations, np.float64).reshape(-1, activations.shape[-1])
    return flat.T @ flat / len(flat)


def test_a_gram_matrix_is_the_mean_product_of_features():
    x = RNG.standard_normal((2, 5, 7, 11)).astype(np.float32)
    expected = np.stack([gram64(one) for one in x])
    np.testing.assert_allclose(objectives.gram_matrix(x), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(objectives.gram_matrix(x[0]), expected[0], rtol=1e-5, atol=1e-6)


def test_the_texture_loss_is_that_of_the_paper():
    x, y = RNG.standard_normal((2, 4, 6, 5))
    places, features = 24, 5
    first, second = (np.einsum("hwi,hwj->ij", one, one) for one in (x, y))
    expected = np.square(first - second).sum() / (4 * features**2 * places**2)
    goal = objectives.gram("conv", gram64(y))
    found = -goal({"conv": jnp.asarray(x, jnp.float32)[None]})
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_gradient_is_that_of_the_paper():
    x, y = RNG.standard_normal((2, 4, 6, 5))
    goal = objectives.gram("conv", gram64(y))
    found = jax.grad(lambda a: -goal({"conv": a[None]}))(jnp.asarray(x, jnp.float32))
    flat = x.reshape(-1, 5)
    expected = flat @ (gram64(x) - gram64(y)) / (5**2 * len(flat))
    np.testing.assert_allclose(found.reshape(-1, 5), expected, rtol=1e-4, atol=1e-6)


def test_by_default_a_blank_picture_costs_one_of_each(model):
    blank = model.replace(params=jax.tree.map(jnp.zeros_like, model.params))
    wanted = terms("style_layers", ["conv", "relu"], (), model)
    zero = rvis.record(blank, CONTENT, ["conv", "relu"])
    np.testing.assert_allclose(textures(model, [STYLE], [1.0], wanted)(zero), -1, rtol=1e-5)
    np.testing.assert_allclose(contents(model, CONTENT, wanted)[0](zero), -1, rtol=1e-5)


def test_explicit_weights_give_the_published_sum(model):
    wanted = terms("style_layers", {"conv": 2.0, "relu": 3.0}, (), model)
    own = rvis.record(model, CONTENT, ["conv", "relu"])
    other = rvis.record(model, STYLE, ["conv", "relu"])
    losses = {
        name: np.square(gram64(own[name][0]) - gram64(other[name][0])).sum() / (4 * 4**2)
        for name in own
    }
    found = textures(model, [jnp.asarray(STYLE)], [1.0], wanted)(own)
    np.testing.assert_allclose(-found, 2 * losses["conv"] + 3 * losses["relu"], rtol=1e-4)
    squares = {n: np.square(np.asarray(own[n] - other[n])).sum() / 2 for n in own}
    found = contents(model, jnp.asarray(STYLE), wanted)[0](own)
    np.testing.assert_allclose(-found, 2 * squares["conv"] + 3 * squares["relu"], rtol=1e-4)


def test_the_total_never_falls_and_styles_come_nearer(model):
    result = style.transfer(model, CONTENT, STYLE, ratio=1e-3, steps=40, **ON_TOY)
    assert (np.diff(result.scores) >= 0).all()
    assert result.style_loss < 0.05 * -result.scores[0]
    assert result.images.min() >= 0 and result.images.max() <= 1


def test_the_units_of_the_loss_do_not_matter_to_lbfgs(model):
    def ends(scale):
        weights = {"style_layers": {"conv": 100 * scale}, "content_layers": {"relu": scale}}
        options = {**ON_TOY, **weights, "start": "noise", "ratio": 0.01, "steps": 40}
        return style.transfer(model, CONTENT, STYLE, **options).scores / scale

    np.testing.assert_allclose(ends(1e9)[-1], ends(1.0)[-1], rtol=0.05)


def test_a_layer_that_the_style_leaves_off_does_not_outweigh_the_others():
    off = toys.pointwise(bias=-0.75)
    goal = style.statistics(off, np.zeros((1, 6, 8, 3), np.float32), ["conv", "relu"])
    assert -100 < float(goal(rvis.record(off, CONTENT, ["conv", "relu"]))) < 0


def test_content_without_any_activation_still_counts():
    off = toys.pointwise(bias=-0.75)
    wanted = terms("content_layers", {"relu": 1.0}, (), off)
    goal, _ = contents(off, jnp.zeros((6, 8, 3)), wanted)
    seen = rvis.record(off, CONTENT, ["relu"])
    expected = np.square(np.asarray(seen["relu"])).sum() / 2
    np.testing.assert_allclose(-goal(seen), expected, rtol=1e-4)


def test_pictures_too_small_for_a_layer_are_named():
    with pytest.raises(ValueError, match="style: a picture large enough for 'relu2'"):
        style.statistics(rvis.load("mnist_cnn"), np.full((1, 1, 1, 1), 0.2, np.float32))


def _named_like_a_vgg(params, images, *, tap=lambda name, x: x, relu=jax.nn.relu):
    return tap("relu4_2", images).mean((1, 2))


def test_the_default_ratio_is_by_the_architecture():
    small = VGG(stages=(1, 1), widths=(4, 4), dense=4, classes=2)
    variables = small.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    vgg = rvis.from_linen(small, variables, input_shape=(32, 32, 3))
    other = rvis.Model((), _named_like_a_vgg, ("relu4_2",), (32, 32, 3))
    picture = np.full((32, 32, 3), 0.5, np.float32)
    for network, layer, expected in ((vgg, "relu1_1", 0.1), (other, "relu4_2", 0.01)):
        layers = {"content_layers": layer, "style_layers": layer}
        for one in (network, network.astype("bfloat16")):
            found = style.transfer(one, picture, picture, steps=1, progress=False, **layers)
            assert found.config["ratio"] == [expected]


def test_a_high_ratio_keeps_the_content_and_a_low_one_the_style(model):
    result = style.transfer(model, CONTENT, STYLE, ratio=[1e3, 1, 1e-3], steps=30, **ON_TOY)
    assert (np.diff(result.style_loss) < 0).all()
    assert (np.diff(result.content_loss) > 0).all()
    assert np.abs(result.images[0] - CONTENT).max() < 0.05


def test_six_ratios_are_one_program_and_the_next_six_the_same(model):
    first = style.transfer(model, CONTENT, STYLE, ratio=np.geomspace(1, 1e-3, 6), steps=4, **ON_TOY)
    size = programs.advance._cache_size()
    style.transfer(model, STYLE, OTHER, ratio=np.geomspace(9, 1e-2, 6), steps=4, **ON_TOY)
    assert programs.advance._cache_size() == size
    alone = style.transfer(model, CONTENT, STYLE, ratio=1e-3, steps=4, **ON_TOY)
    np.testing.assert_allclose(alone.images, first.images[-1], atol=1e-5)


def test_adam_serves_as_well(model):
    result = style.transfer(
        model, CONTENT, STYLE, ratio=1e-3, optimizer=rvis.optimizers.adam(0.02), steps=60, **ON_TOY
    )
    assert result.scores[-1] > 0.3 * result.scores[0]


def test_several_styles_mix_by_their_shares(model):
    def losses(shares):
        result = style.transfer(
            model, CONTENT, [STYLE, OTHER**3], shares=shares, ratio=1e-4, steps=40, **ON_TOY
        )
        seen = rvis.record(model, result.images, "conv")["conv"][0]
        goals = [rvis.record(model, one, "conv")["conv"][0] for one in (STYLE, OTHER**3)]
        return [np.square(gram64(seen) - gram64(goal)).sum() for goal in goals]

    mostly_first, mostly_second = losses([9, 1]), losses([1, 9])
    assert mostly_first[0] < mostly_second[0]
    assert mostly_first[1] > mostly_second[1]


def test_coarse_to_fine_ends_at_the_contents_size(model):
    result = style.transfer(model, CONTENT, STYLE[:4], scales=(0.5, 1), steps=4, **ON_TOY)
    assert result.images.shape == CONTENT.shape
    assert result.scores.shape == (8,)


def test_an_interrupted_transfer_goes_on_at_its_scale(model, tmp_path, monkeypatch):
    options = {"scales": (0.5, 1), "steps": 4, "ratio": 0.1, **ON_TOY}
    whole = style.transfer(model, CONTENT, STYLE, **options)
    state = tmp_path / "state"
    with interrupted(monkeypatch, 2), pytest.raises(KeyboardInterrupt):
        style.transfer(model, CONTENT, STYLE, checkpoint=state, **options)
    with pytest.raises(ValueError, match="checkpoint: .* other arguments"):
        style.transfer(model, CONTENT, OTHER, checkpoint=state, **options)
    with interrupted(monkeypatch, 2):  # the first scale is not climbed again
        again = style.transfer(model, CONTENT, STYLE, checkpoint=state, **options)
    np.testing.assert_array_equal(again.images, whole.images)
    np.testing.assert_array_equal(again.scores, whole.scores)
    assert not state.exists()


def test_a_callback_sees_every_scale_and_ends_the_run(model):
    seen = []

    def watch(step, pictures, scores):
        seen.append((step, pictures.shape, scores.shape))
        return step == last

    options = {"scales": (0.5, 1), "steps": 3, "snapshots": (0, 2), **ON_TOY}
    last = 7
    found = style.transfer(model, CONTENT, STYLE, ratio=[0.1, 1], callback=watch, **options)
    shapes = [(2, 3, 4, 3)] * 3 + [(2, 6, 8, 3)] * 3
    assert seen == [(i + 1, shapes[i], (2, i + 1)) for i in range(6)]
    assert list(found.snapshots) == [0, 2]
    last = 1
    found = style.transfer(model, CONTENT, STYLE, ratio=[0.1, 1], callback=watch, **options)
    assert found.images.shape == (2, *CONTENT.shape) and found.scores.shape == (2, 1)
    assert not found.snapshots


@pytest.mark.parametrize("start", ["content", "noise", "style", OTHER])
def test_starts(model, start):
    result = style.transfer(model, CONTENT, STYLE, start=start, steps=1, **ON_TOY)
    given = {"content": CONTENT, "style": STYLE}.get(start) if isinstance(start, str) else start
    if given is not None:
        np.testing.assert_allclose(result.images, given, atol=1e-6)
    else:
        assert 0.02 < result.images.std() < 0.2


def test_the_same_key_gives_the_same_bits(model):
    options = {"layers": ["conv"], "steps": 5, "samples": 2, "progress": False}
    first = style.texture(model, STYLE, pooling="max", key=3, **options)
    again = style.texture(model, STYLE, pooling="max", key=3, **options)
    np.testing.assert_array_equal(first.images, again.images)
    assert np.abs(first.images[0] - first.images[1]).max() > 0.01


def test_a_texture_ends_with_the_pictures_histogram(model):
    result = style.texture(
        model, STYLE, size=(12, 16), layers="conv", pooling="max", steps=3, progress=False
    )
    assert result.images.shape == (12, 16, 3)
    for channel in range(3):
        levels = np.quantile(result.images[..., channel], [0.1, 0.5, 0.9])
        expected = np.quantile(STYLE[..., channel], [0.1, 0.5, 0.9])
        np.testing.assert_allclose(levels, expected, atol=0.02)


def test_matching_a_histogram_with_ones_own_changes_nothing():
    np.testing.assert_allclose(style.match_histogram(STYLE, STYLE), STYLE, atol=1e-6)


def test_colours_are_those_of_the_reference():
    cloud = np.clip(0.5 + 0.05 * RNG.standard_normal((20, 20, 3)), 0, 1)
    mixing = np.array([[1, 0.5, 0], [0, 1, 0.3], [0, 0, 1]])
    other = np.clip(0.45 + 0.04 * RNG.standard_normal((20, 20, 3)) @ mixing, 0, 1)
    moved = colours.with_colours_of(cloud, other)
    np.testing.assert_allclose(moved.mean((0, 1)), other.mean((0, 1)), atol=1e-3)
    np.testing.assert_allclose(
        np.cov(moved.reshape(-1, 3).T), np.cov(other.reshape(-1, 3).T), atol=1e-4
    )


def test_luminance_transfer_keeps_the_contents_chrominance(model):
    pale = 0.5 + 0.2 * (CONTENT - 0.5)
    result = style.transfer(
        model, pale, STYLE, colour="luminance", start=OTHER, ratio=0.01, steps=5, **ON_TOY
    )
    change = result.images - pale
    np.testing.assert_allclose(change[..., 0], change[..., 1], atol=1e-5)
    assert np.abs(change).max() > 0.01


CUTS = {
    "strides": ("cifar10_resnet", (75, 101), 64, ["relu", "layer1", "layer2"], "layer2"),
    "poolings": ("mnist_cnn", (61, 50), 40, ["relu1", "relu2"], "relu2"),
    "a single row": ("mnist_cnn", (30, 90), 40, ["relu1"], "conv1"),
}
"""Network, size, tile, layers of style and of content."""


@pytest.fixture(params=CUTS)
def cut(request):
    """A picture with what is asked of it, whole and in windows."""
    name, size, tile, names, other = CUTS[request.param]
    model = rvis.load(name).unnamed()
    shape = (*size, model.input_shape[2])
    image, own, content = jnp.asarray(RNG.uniform(size=(3, *shape)), jnp.float32)
    wanted, kept = terms("layers", names, (), model), terms("layers", other, (), model)
    whole = textures(model, [own], [1.0], wanted) + contents(model, content, kept)[0]
    part = tiles.cut(model, (*wanted.names, *kept.names), size, tile)
    goal, targets = contents(model, content, kept, tile=tile)
    goal = textures(model, [own], [1.0], wanted, tile=tile, summed=True) + goal
    return (model, whole), (tiles.judged(model, part, wanted.names, targets), goal), image


@jax.jit
def judge(model, goal, image):
    def score(image):
        return goal(taps.activations(model, image[None], goal.layers))

    return jax.value_and_grad(score)(image)


def test_in_windows_loss_and_gradient_are_those_of_the_whole(cut):
    (expected, whole), (found, parts) = (judge(*asked, cut[2]) for asked in cut[:2])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(parts, whole, atol=1e-5 * np.abs(whole).max())


def test_in_windows_memory_does_not_grow_with_the_picture():
    model = rvis.load("cifar10_resnet").unnamed()
    wanted = terms("layers", ["relu", "layer1"], (), model)

    def needed(side, tile):
        blank = jnp.zeros((side, side, 3))
        part = tiles.cut(model, wanted.names, (side, side), tile)
        goal = textures(model, [blank], [1.0], wanted, tile=tile, summed=part is not None)
        asked = model if part is None else tiles.judged(model, part, wanted.names)
        compiled = judge.lower(asked, goal, blank).compile()
        return compiled.memory_analysis().temp_size_in_bytes - 3 * blank.nbytes

    assert needed(256, 64) < 1.1 * needed(128, 64) < 0.6 * needed(128, None)


@pytest.mark.parametrize("length", [64, 65, 70, 127, 200])
@pytest.mark.parametrize("tile", [33, 48, 63])
def test_every_place_counts_in_one_window(length, tile):
    part = tiles.cut(rvis.load("mnist_cnn"), ["relu1", "pool2"], (length, 30), tile)
    for layer, (places, *_) in enumerate(part.places):
        counted = [range(*window[layer]) for window in part.rows.counted]
        assert [i for some in counted for i in some] == list(range(places))
    assert part.rows.side <= tile and part.columns.starts == (0,)


def test_in_windows_a_transfer_goes_the_same_way():
    model = rvis.load("mnist_cnn")
    content, own = RNG.uniform(size=(2, 40, 22, 1)).astype(np.float32)
    options = {"style_layers": ["relu1", "pool1"], "content_layers": "relu1", "steps": 4}
    whole, parts = (
        style.transfer(model, content, own, ratio=[0.01, 1], tile=tile, progress=False, **options)
        for tile in (None, 24)
    )
    np.testing.assert_allclose(parts.scores, whole.scores, rtol=1e-3)
    np.testing.assert_allclose(parts.content_loss, whole.content_loss, rtol=1e-2)


def test_pictures_that_fit_a_window_are_seen_whole(model):
    assert tiles.cut(model, ["conv"], (6, 8), 8) is None


@pytest.mark.parametrize("name", ["mnist_cnn", "cifar10_resnet"])
def test_averages_take_the_place_of_maxima_where_there_are_any(name):
    model = rvis.load(name)
    images = RNG.uniform(size=(1, *model.input_shape)).astype(np.float32)
    averaged = pooled(model, "average")
    if name == "cifar10_resnet":
        np.testing.assert_array_equal(averaged(images), model(images))
        return
    before = rvis.record(averaged, images, "relu1")["relu1"]
    after = rvis.record(averaged, images, "pool1")["pool1"]
    blocks = np.asarray(before).reshape(1, 14, 2, 14, 2, -1)
    np.testing.assert_allclose(after, blocks.mean((2, 4)), atol=1e-6)


@pytest.mark.parametrize(
    "name", ["vgg16", "vgg19_bn", "googlenet", "inceptionv1", "resnet18", "resnet50", "alexnet"]
)
def test_every_family_has_layers_of_its_own(name):
    model = toys.outline(name)
    known = defaults("layers", model)
    shapes = rvis.layer_shapes(model)
    sides = [shapes[layer][0] for layer in known.style]
    assert sides == sorted(sides, reverse=True)
    assert len(shapes[known.content]) == 3


def test_statistics_of_a_batch_pull_pictures_towards_it(model):
    batch = np.stack([STYLE, OTHER])
    near = style.statistics(model, batch, ["conv"])
    options = {"steps": 30, "transforms": (), "image": "pixel", "progress": False}
    goal = objectives.channel("conv", 0)
    free = rvis.visualize(model, goal, **options).images
    kept = rvis.visualize(model, goal + 100 * near, **options).images
    score = {name: float(near(rvis.record(model, x, ["conv"]))) for name, x in
             (("free", free), ("kept", kept))}  # fmt: skip
    assert score["kept"] > 0.2 * score["free"]


BAD = {
    "content": ({"content": 255 * CONTENT}, "content: values in"),
    "two contents": ({"content": np.stack([CONTENT] * 2)}, "content: one image"),
    "style": ({"style": STYLE[..., :1]}, "style: 3 channels"),
    "no style": ({"style": []}, "style: at least one"),
    "ratio": ({"ratio": -1}, "ratio: "),
    "layer": ({"style_layers": "relo"}, "style_layers: unknown 'relo'; did you mean 'relu'"),
    "no layer": ({"style_layers": []}, "style_layers: at least one"),
    "dense": ({"content_layers": "dense"}, "content_layers: layers with places"),
    "unknown network": ({"style_layers": None}, "style_layers: names of layers"),
    "weight": ({"style_layers": {"conv": -1}}, "style_layers: "),
    "shares": ({"shares": [1, 2]}, "shares: one for each of 1"),
    "start": ({"start": "contents"}, "start: unknown 'contents'; did you mean 'content'"),
    "start's shape": ({"start": STYLE[:4]}, "start: "),
    "colour": ({"colour": "hist"}, "colour: unknown"),
    "pooling": ({"pooling": "avg"}, "pooling: unknown"),
    "own pooling": ({"pooling": "average"}, "pooling: pointwise pools by itself"),
    "scales": ({"scales": (1, 0.5)}, "scales: rising numbers"),
    "optimizer": ({"optimizer": "adam"}, "optimizer: one of rvis.optimizers"),
    "steps": ({"steps": 0}, "steps: at least 1"),
    "snapshots": ({"snapshots": (9,), "steps": 3}, "snapshots: 0 to 3"),
    "tv": ({"tv": -1}, "tv: "),
    "tile": ({"tile": 0}, "tile: at least 1"),
    "no ratio": ({"ratio": []}, "ratio: at least one"),
    "a word": ({"ratio": "0.1"}, "ratio: a number"),
    "chunk": ({"chunk": 0}, "chunk: at least 1"),
    "callback": ({"callback": 1}, "callback: a function"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named_before_anything_runs(case, model, monkeypatch):
    changes, message = BAD[case]
    monkeypatch.setattr(engine, "run", lambda *a, **k: pytest.fail("it ran"))
    arguments = {"content": CONTENT, "style": STYLE, **ON_TOY, **changes}
    with pytest.raises((ValueError, TypeError), match=message):
        style.transfer(model, arguments.pop("content"), arguments.pop("style"), **arguments)


def test_windows_narrower_than_what_a_place_sees_are_refused():
    model = rvis.load("mnist_cnn")
    picture = RNG.uniform(size=(60, 60, 1)).astype(np.float32)
    with pytest.raises(ValueError, match="tile: windows wider than the 14 pixels .*'relu2'"):
        style.texture(model, picture, layers="relu2", tile=12, progress=False)


def test_layers_that_see_the_whole_picture_have_no_windows():
    model = toys.pointwise()
    spread = model.replace(apply=_spread)
    with pytest.raises(ValueError, match="tile: .*'conv'"):
        style.texture(spread, STYLE, layers="conv", tile=4, progress=False)


def _halved(params, images, *, tap=lambda name, x: x, relu=jax.nn.relu):
    """Pooled by two and enlarged again, with a stride that no layer of its own tells."""
    small = jax.lax.reduce_window(
        images, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), [(0, 0), (0, 1), (0, 1), (0, 0)]
    )
    again = jnp.repeat(jnp.repeat(small, 2, 1), 2, 2)
    return toys.apply(params, again[:, : images.shape[1], : images.shape[2]], tap=tap, relu=relu)


def _cropped(params, images, *, tap=lambda name, x: x, relu=jax.nn.relu):
    return toys.apply(params, images[:, 3:-3, 3:-3], tap=tap, relu=relu)


@pytest.mark.parametrize("apply", [_halved, _cropped])
def test_layers_that_see_other_pixels_in_windows_are_refused(apply):
    odd = toys.pointwise().replace(apply=apply)
    with pytest.raises(ValueError, match="tile: .*'conv'.*None sees the whole"):
        tiles.cut(odd, ["conv"], (41, 25), 16)


def test_windows_serve_in_double_precision():
    with jax.enable_x64(True):
        picture = np.random.default_rng(0).uniform(size=(2, 30, 18, 1)).astype(np.float32)
        layers = {"style_layers": "relu1", "content_layers": "conv1"}
        options = {"steps": 1, "tile": 20, "progress": False, **layers}
        found = style.transfer(rvis.load("mnist_cnn"), *picture, **options)
    assert np.isfinite(found.scores).all()


def _spread(params, images, *, tap=lambda name, x: x, relu=jax.nn.relu):
    return toys.apply(params, images + images.mean((1, 2), keepdims=True), tap=tap, relu=relu)
