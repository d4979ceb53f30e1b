"""Synthesis: seeds, schedules, and six tasks on models whose best picture is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import rvis
from rvis import engine, synthesis
from rvis.data import Dataset
from rvis.engine import checkpoints, programs
from rvis.synthesis import seeds as seeding
from rvis.synthesis.climb import schedule

SHAPE = (8, 8, 3)
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0.3, 0.7, (3, *SHAPE)).astype(np.float32)
HOLE = np.zeros(SHAPE[:2])
HOLE[2:5, 3:6] = 1


@pytest.fixture(scope="module")
def model():
    return toys.pointwise(classes=4, size=SHAPE[:2])


@pytest.fixture(scope="module")
def seeds():
    return synthesis.Seeds(
        ("c0", "c1", "c2", "c3"),
        RNG.uniform(0.3, 0.7, (4, 2, 2, 3)),
        np.tile(0.05 * np.tril(RNG.standard_normal((12, 12))), (4, 1, 1)),
    )


def tasks(model, seeds):
    """Each task as a function of images and options."""
    return {
        "generate": lambda n, **o: synthesis.generate(
            model, [0, "c2", 3][:n], seeds=seeds, progress=False, **o
        ),
        "inpaint": lambda n, **o: synthesis.inpaint(
            model, IMAGES[:n], HOLE, [1, 2, 3][:n], progress=False, **o
        ),
        "translate": lambda n, **o: synthesis.translate(
            model, IMAGES[:n], ["c1", "c2", "c3"][:n], progress=False, **o
        ),
        "sketch": lambda n, **o: synthesis.sketch(
            model, IMAGES[:n], [1, 2, 3][:n], progress=False, **o
        ),
        "super_resolve": lambda n, **o: synthesis.super_resolve(
            model, IMAGES[:n, :4, :4], 2, [1, 2, 3][:n], progress=False, **o
        ),
        "paint": lambda n, **o: synthesis.paint(
            model, IMAGES[:n], HOLE, [1, 2, 3][:n], progress=False, **o
        ),
    }


TASKS = ("generate", "inpaint", "translate", "sketch", "super_resolve", "paint")


@pytest.mark.parametrize("task", TASKS)
def test_pictures_keep_to_the_ball_and_the_box_and_the_score_rises(task, model, seeds):
    result = tasks(model, seeds)[task](3, eps=0.4, step_size=0.1, steps=8)
    assert result.images.shape == (3, *SHAPE)
    assert result.images.min() >= 0 and result.images.max() <= 1
    assert (result.distances <= 0.4 * (1 + 1e-6)).all()
    assert (result.distances > 0.1).all()
    assert (result.scores[:, -1] > result.scores[:, 0]).all()


@pytest.mark.parametrize("task", TASKS)
def test_a_batch_equals_its_examples_and_the_same_call_the_same_bits(task, model, seeds):
    many = tasks(model, seeds)[task](3, steps=4)
    one = tasks(model, seeds)[task](1, steps=4)
    np.testing.assert_allclose(many.images[0], one.images[0], atol=1e-6)
    np.testing.assert_array_equal(many.images, tasks(model, seeds)[task](3, steps=4).images)


def test_a_single_image_gives_a_single_picture(model, seeds):
    three = synthesis.translate(model, IMAGES, 1, steps=3, snapshots=(0, 2), progress=False)
    one = synthesis.translate(model, IMAGES[0], 1, steps=3, snapshots=(0, 2), progress=False)
    for name in ("images", "scores", "starts", "distances"):
        np.testing.assert_array_equal(getattr(one, name), getattr(three, name)[0])
    assert one.images.shape == one.snapshots[2].shape == SHAPE and one.labels == "c1"
    assert one.show().mode == "RGB"
    assert synthesis.generate(model, 1, seeds=seeds, steps=1, progress=False).scores.shape == (1,)


def test_a_callback_ends_the_run(model):
    found = synthesis.translate(
        model, IMAGES, 1, steps=9, callback=lambda step, *_: step == 2, progress=False
    )
    assert found.scores.shape == (3, 2)


def test_an_interrupted_run_goes_on(model, tmp_path, monkeypatch):
    options = {"steps": 6, "progress": False}
    whole = synthesis.translate(model, IMAGES, 1, **options)
    options["checkpoint"] = tmp_path / "state"
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)

    def stop(step, images, scores):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesis.translate(model, IMAGES, 1, callback=stop, **options)
    again = synthesis.translate(model, IMAGES, 1, **options)
    np.testing.assert_array_equal(again.images, whole.images)
    np.testing.assert_array_equal(again.scores, whole.scores)


def test_numbers_and_classes_share_one_program(model):
    before = programs.advance._cache_size()
    for eps, size, label in ((0.5, 0.1, 0), (0.25, 0.05, 1), (1.0, 0.2, "c3")):
        synthesis.translate(model, IMAGES, label, eps=eps, step_size=size, steps=6, progress=False)
    assert programs.advance._cache_size() <= before + 1


def test_on_a_linear_model_the_picture_goes_straight_for_the_class():
    weights = RNG.standard_normal((4 * 4, 2)).astype(np.float32)
    model = toys.linear(weights, (4, 4, 1))
    start = np.full((4, 4, 1), 0.5, np.float32)
    found = synthesis.translate(model, start, 1, eps=0.2, step_size=0.05, steps=10, progress=False)
    towards = weights[:, 1] - weights[:, 0]
    best = 0.5 + 0.2 * towards / np.linalg.norm(towards)
    np.testing.assert_allclose(found.images.ravel(), best, atol=1e-5)


def test_inpainting_starts_from_the_visible_mean_and_keeps_the_visible(model):
    found = synthesis.inpaint(
        model, IMAGES, HOLE, 1, weight=1e3, eps=2, step_size=0.02, steps=60, progress=False
    )
    hidden = HOLE.astype(bool)
    visible = IMAGES[:, ~hidden].mean(1)
    np.testing.assert_allclose(
        found.starts[:, hidden], np.repeat(visible[:, None], hidden.sum(), 1), atol=1e-6
    )
    kept = np.abs(found.images - IMAGES)[:, ~hidden].max()
    changed = np.abs(found.images - found.starts)[:, hidden].max()
    assert kept < 0.02 < changed


def test_smaller_pictures_average_over_the_cells_of_a_seed():
    mean = np.tile(np.float32([1, 0, 1, 0])[None, :, None, None], (1, 1, 4, 1))
    seeds = synthesis.Seeds(("a",), mean, np.zeros((1, 16, 16)))
    drawn = seeds.sample(jax.random.split(jax.random.key(0), 1), [0], (2, 2))
    np.testing.assert_allclose(drawn, 0.5, atol=0.1)


def test_a_hole_as_large_as_the_image_starts_grey(model):
    found = synthesis.inpaint(model, IMAGES, np.ones(SHAPE[:2]), 1, steps=1, progress=False)
    np.testing.assert_array_equal(found.starts, 0.5)


def test_masks_may_differ_from_image_to_image(model):
    masks = np.stack([HOLE, 0 * HOLE, 1 + 0 * HOLE])
    found = synthesis.inpaint(model, IMAGES, masks, 1, steps=1, progress=False)
    np.testing.assert_array_equal(found.starts[1], IMAGES[1])
    np.testing.assert_array_equal(found.starts[2], 0.5)


def test_super_resolution_starts_from_blocks(model):
    found = synthesis.super_resolve(model, IMAGES[:, :4, :4], 2, 0, steps=1, progress=False)
    np.testing.assert_array_equal(found.starts[:, ::2, ::2], IMAGES[:, :4, :4])
    np.testing.assert_array_equal(found.starts[:, 1::2, 1::2], IMAGES[:, :4, :4])


def test_without_a_class_the_models_own_sight_is_taken(model):
    found = synthesis.super_resolve(model, IMAGES[:, :4, :4], 2, steps=1, progress=False)
    seen = np.asarray(model(jnp.asarray(found.starts))).argmax(-1)
    assert found.labels.tolist() == [model.classes[i] for i in seen]


def test_features_can_be_painted(model):
    goal = rvis.objectives.channel("conv", 2)
    found = synthesis.paint(model, IMAGES, HOLE, goal, weight=1e3, steps=10, progress=False)
    assert (found.scores[:, -1] > found.scores[:, 0]).all()
    moved = np.abs(found.images - IMAGES).mean((0, 3))
    assert moved[HOLE == 1].mean() > 2 * moved[HOLE == 0].mean()


@pytest.mark.parametrize(
    ("task", "size", "expected"),
    [
        ("generate", (32, 32), (30, 0.5, 60)),
        ("generate", (224, 224), (40, 1, 60)),
        ("inpaint", (224, 224), (21.6, 0.1, 720)),
        ("translate", (112, 112), (40, 0.25, 200)),
        ("super_resolve", (448, 112), (8, 1, 40)),
        ("paint", (32, 32), (10, 1 / 7, 140)),
    ],
)
def test_published_lengths_scale_with_the_root_of_the_pixels(task, size, expected):
    plan = schedule(task, size, None, None, None)
    np.testing.assert_allclose((plan.eps, plan.step_size, plan.steps), expected)


def gaussians(count=4000):
    """Images of 2×2 blocks whose values have a known mean and covariance, in two classes."""
    rng = np.random.default_rng(1)
    mean = np.array([[0.3, 0.5, 0.6, 0.4], [0.5, 0.4, 0.5, 0.6]])
    root = 0.03 * np.tril(rng.standard_normal((2, 4, 4)))
    labels = np.repeat(np.arange(2), count).astype(np.int32)
    noise = rng.standard_normal((2 * count, 4))
    values = mean[labels] + np.einsum("nij,nj->ni", root[labels], noise)
    images = values.reshape(-1, 2, 2, 1).repeat(2, 1).repeat(2, 2)
    images = (255 * images.clip(0, 1)).round().astype(np.uint8)
    return Dataset(images, labels, ("a", "b"), "gaussians"), mean, root @ root.swapaxes(1, 2)


def test_seeds_have_the_mean_and_covariance_of_their_class():
    data, mean, covariance = gaussians()
    fitted = synthesis.fit(data, cells=2)
    np.testing.assert_allclose(fitted.mean.reshape(2, 4), mean, atol=0.01)
    found = fitted.root @ fitted.root.swapaxes(1, 2)
    np.testing.assert_allclose(found, covariance, atol=1.5e-3)


def test_draws_follow_the_seeds_and_enlarge_without_edges():
    data, _, _ = gaussians()
    fitted = synthesis.fit(data, cells=2)
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = np.asarray(fitted.sample(keys, np.ones(4000, np.int32), (6, 6)))
    between = (drawn[:, 1] + drawn[:, 4]) / 2  # the rows of the two cells' middles
    np.testing.assert_allclose(drawn[:, 2:4].mean(1), between, atol=1e-6)
    assert np.abs(np.diff(drawn, axis=1)).max() < np.abs(drawn[:, 4] - drawn[:, 1]).max() / 2
    cells = drawn[:, 1::3, 1::3].reshape(4000, 4)
    np.testing.assert_allclose(cells.mean(0), fitted.mean[1].ravel(), atol=0.01)
    np.testing.assert_allclose(
        np.cov(cells, rowvar=False), fitted.root[1] @ fitted.root[1].T, atol=1.5e-3
    )


def test_seeds_survive_the_disk(tmp_path, seeds):
    seeds.save(tmp_path / "seeds.npz")
    read = synthesis.load(tmp_path / "seeds.npz")
    assert read.classes == seeds.classes
    np.testing.assert_allclose(read.mean, seeds.mean, rtol=1e-3)
    np.testing.assert_allclose(read.root, seeds.root, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + bytes(40)])
def test_a_damaged_file_of_seeds_is_refused(tmp_path, content):
    (tmp_path / "seeds.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"path: .*seeds\.npz holds no seeds"):
        synthesis.load(tmp_path / "seeds.npz")


@pytest.mark.parametrize("name", ["cifar10_resnet_robust", "mnist_cnn_robust"])
def test_seeds_are_shipped_for_the_shipped_classes(name):
    model = rvis.load(name)
    shipped = seeding.get(model)
    assert shipped.classes == model.classes
    keys = jax.random.split(jax.random.key(0), 2)
    drawn = np.asarray(shipped.sample(keys, [0, 1], model.input_shape[:2]))
    assert drawn.std() > 0.05


def test_a_robust_network_makes_what_another_network_recognises():
    robust, judge = rvis.load("cifar10_resnet_robust"), rvis.load("cifar10_resnet")
    made = synthesis.generate(robust, range(10), steps=15, progress=False)
    seen = np.asarray(judge(jnp.asarray(made.images))).argmax(-1)
    assert (seen == np.arange(10)).sum() >= 6


BAD = {
    "unknown name": (lambda m: synthesis.translate(m, IMAGES, "c9"), "target: unknown 'c9'"),
    "number out of range": (lambda m: synthesis.translate(m, IMAGES, 4), "target: 0 to 3"),
    "no class": (lambda m: synthesis.sketch(m, IMAGES, None), "target: a class"),
    "two for three": (lambda m: synthesis.translate(m, IMAGES, [1, 2]), "target: one, or"),
    "empty": (lambda m: synthesis.translate(m, IMAGES, []), "target: one class"),
    "a float": (lambda m: synthesis.translate(m, IMAGES, 1.5), "target: a class number"),
    "bytes": (lambda m: synthesis.translate(m, 255 * IMAGES, 1), "images: values in"),
    "NaN": (lambda m: synthesis.translate(m, np.nan * IMAGES, 1), "images: .*NaN"),
    "grey": (lambda m: synthesis.translate(m, IMAGES[..., :1], 1), "images: 3 channels"),
    "mask's shape": (lambda m: synthesis.inpaint(m, IMAGES, HOLE[:4], 1), "mask: "),
    "mask's values": (lambda m: synthesis.inpaint(m, IMAGES, 2 * HOLE, 1), "mask: values in"),
    "masks": (
        lambda m: synthesis.inpaint(m, IMAGES, np.stack([HOLE] * 2), 1),
        "mask: one, or one for each",
    ),
    "weight": (lambda m: synthesis.paint(m, IMAGES, HOLE, 1, weight=-1), "weight: "),
    "layer": (
        lambda m: synthesis.paint(m, IMAGES, HOLE, rvis.objectives.channel("convv", 0)),
        "layer: unknown 'convv'; did you mean 'conv'",
    ),
    "factor": (lambda m: synthesis.super_resolve(m, IMAGES, 0), "factor: at least 1"),
    "eps": (lambda m: synthesis.sketch(m, IMAGES, 1, eps=-1), "eps: "),
    "step_size": (lambda m: synthesis.sketch(m, IMAGES, 1, step_size=0), "step_size: "),
    "steps": (lambda m: synthesis.sketch(m, IMAGES, 1, steps=0), "steps: "),
    "snapshots": (
        lambda m: synthesis.sketch(m, IMAGES, 1, steps=5, snapshots=(6,)),
        "snapshots: 0 to 5",
    ),
    "chunk": (lambda m: synthesis.sketch(m, IMAGES, 1, chunk=0), "chunk: "),
    "no seeds": (lambda m: synthesis.generate(m, 1), "seeds: none are shipped"),
    "size": (lambda m: synthesis.generate(m, 1, size=(8, 8, 3)), "size: "),
    "an objective": (
        lambda m: synthesis.generate(m, rvis.objectives.layer("conv")),
        "target: numbers or names of classes",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named_before_anything_runs(case, model, monkeypatch):
    call, message = BAD[case]
    monkeypatch.setattr(engine, "run", lambda *a, **k: pytest.fail("it ran"))
    with pytest.raises((ValueError, TypeError), match=message):
        call(model)


def test_seeds_of_other_classes_are_refused(model):
    other = synthesis.Seeds(("a", "b"), np.full((2, 2, 2, 3), 0.5), np.zeros((2, 12, 12)))
    with pytest.raises(ValueError, match="seeds: those of the 4 classes"):
        synthesis.generate(model, 0, seeds=other)
