"""Fooling images: what the network is sure of, from where, how soon, and the command."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

from rvis import attacks, images, optimizers, regularizers, transforms
from rvis.engine import programs
from scripts import fool as command
from scripts import lbfgs_check
from tests import toys
from tests.conftest import DATA

SHAPE = (4, 5, 1)
RNG = np.random.default_rng(1)
WEIGHTS = RNG.standard_normal((20, 3)).astype(np.float32)
MODEL = toys.linear(WEIGHTS, SHAPE).replace(classes=("ant", "bee", "cat"))
PHOTO = RNG.uniform(0.3, 0.7, SHAPE).astype(np.float32)


def run(target=(0, 2), **options):
    return attacks.fool(MODEL, target, **{"steps": 20, "progress": False, **options})


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


@pytest.mark.parametrize("start", ["noise", "grey", PHOTO, np.stack([PHOTO, 1 - PHOTO])])
def test_the_network_is_surer_than_at_the_start_and_says_so(start):
    result = run(start=start)
    for pictures, column in ((result.starts, 0), (result.images, -1)):
        chances = softmax(np.asarray(MODEL(pictures)))[[0, 1], [0, 2]]
        np.testing.assert_allclose(result.probabilities[:, column], chances, rtol=1e-5)
    assert (result.probabilities[:, -1] > result.probabilities[:, 0]).all()
    assert result.images.min() >= 0 and result.images.max() <= 1
    if isinstance(start, np.ndarray):
        np.testing.assert_array_equal(result.starts, np.broadcast_to(start, (2, *SHAPE)))


def test_the_first_steps_are_along_the_gradient():
    result = run(0, start="grey", objective="logit", steps=3)
    slope = WEIGHTS[:, 0].reshape(SHAPE)
    moved = 3 * 0.002 * slope / np.abs(slope).mean()
    np.testing.assert_allclose(result.images - 0.5, moved, atol=1e-6)
    assert result.distance() == pytest.approx(np.linalg.norm(moved), rel=1e-4)
    assert result.distance("linf") == pytest.approx(np.abs(moved).max(), rel=1e-4)


def test_since_is_the_first_step_at_which_the_class_leads():
    short = run(start=PHOTO, steps=200)
    for i, unit in enumerate((0, 2)):
        since = int(short.since[i])
        snaps = run(unit, start=PHOTO, steps=200, snapshots=(max(since - 1, 0), since)).snapshots
        leads = [np.asarray(MODEL(p)).argmax() == unit for p in snaps.values()]
        assert leads[-1] and (since == 0 or not leads[0])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_ball_about_the_start_is_kept(norm):
    result = run(start=PHOTO, eps=0.01, norm=norm, steps=50)
    assert (result.distance(norm) <= 0.01 * (1 + 1e-5)).all()
    assert (result.distance(norm) > 0.008).all()


def test_a_picture_is_done_when_the_network_is_sure_enough():
    result = run(start=PHOTO, confidence=0.6, steps=300)
    assert (result.probabilities[:, -1] >= 0.6).all()
    first = (result.probabilities >= 0.6).argmax(1)
    free = run(start=PHOTO, steps=300)
    np.testing.assert_allclose(
        result.probabilities[0, : first[0] + 1], free.probabilities[0, : first[0] + 1], rtol=1e-5
    )
    assert (result.probabilities[:, -1] < free.probabilities[:, -1]).all()


def test_names_and_numbers_mean_the_same_classes():
    named, numbered = run(["ant", "cat"]), run([0, 2])
    np.testing.assert_array_equal(named.images, numbered.images)
    assert named.labels.tolist() == ["ant", "cat"]
    assert run("bee").images.shape == SHAPE


def test_a_class_is_the_same_alone_and_in_a_list_and_again():
    whole = run([0, 1, 2])
    for unit in range(3):
        np.testing.assert_array_equal(run(unit).images, whole.images[unit])
    assert not np.array_equal(run(0, key=1).images, whole.images[0])


def test_penalties_and_transforms_take_part():
    plain = run(0, start="grey")
    smooth = run(0, start="grey", regularizers=[regularizers.total_variation(0.2)])
    rolled = run(0, start="grey", transforms=[transforms.Roll(2)])
    assert (
        np.abs(np.diff(smooth.images, axis=1)).sum() < np.abs(np.diff(plain.images, axis=1)).sum()
    )
    assert not np.array_equal(rolled.images, plain.images)


@pytest.mark.parametrize(
    "image", ["fourier", *(pytest.param(x, marks=pytest.mark.slow) for x in ("pyramid", "cppn"))]
)
def test_other_parameterizations_fool_too(image):
    model = toys.pointwise(size=(8, 8))
    result = attacks.fool(model, 1, image=image, steps=10, progress=False)
    assert result.images.shape == (8, 8, 3)
    assert result.probabilities[-1] > result.probabilities[0]


def test_classes_radii_and_rates_trace_once():
    def sweep(target, eps, rate):
        options = {"eps": eps, "optimizer": optimizers.steepest(rate)}
        run(target, start="grey", **options)
        run(target, start=PHOTO, confidence=0.9, **options)

    sweep(0, 0.1, 0.01)
    begun = programs.advance._cache_size()
    sweep(2, 0.5, 0.1)
    sweep(1, 1.0, 0.3)
    assert programs.advance._cache_size() == begun


def test_a_picture_that_is_done_leaves_and_keeps_what_was_told():
    heard = []

    def callback(step, pictures, scores):
        heard.append((step, pictures.shape, scores.shape))

    done = run(start=PHOTO, confidence=0.6, steps=300, snapshots=(0, 5, 300), callback=callback)
    firsts = (done.probabilities >= 0.6).argmax(1)
    assert firsts.max() < 300
    for chances, first, picture, stage in zip(
        done.probabilities, firsts, done.images, done.snapshots[5], strict=True
    ):
        np.testing.assert_allclose(chances[first:], chances[first], rtol=1e-5)
        if first <= 5:
            np.testing.assert_array_equal(stage, picture)
    assert sorted(done.snapshots) == [0, 5]
    assert all(shape == (2, *SHAPE) and scores == (2, step) for step, shape, scores in heard)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("target", {"target": 3}),
        ("target", {"target": "bea"}),
        ("target", {"target": []}),
        ("start", {"start": "gray"}),
        ("start", {"start": PHOTO[:3]}),
        ("start", {"start": np.stack([PHOTO] * 3)}),
        ("start", {"start": 2 * PHOTO}),
        ("objective", {"objective": "logits"}),
        ("eps", {"eps": -1.0}),
        ("eps", {"eps": 1.0, "image": "fourier"}),
        ("norm", {"norm": "l3"}),
        ("confidence", {"confidence": 1.5}),
        ("steps", {"steps": 0}),
        ("image", {"image": "rgba"}),
        ("image", {"image": images.Pixel((4, 5, 3))}),
        ("transforms", {"transforms": "lucid"}),
        ("regularizers", {"regularizers": regularizers.l1(1.0)}),
        ("optimizer", {"optimizer": 0.1}),
        ("snapshots", {"snapshots": (21,)}),
        ("key", {"key": "a"}),
    ],
)
def test_bad_arguments_are_named(name, options):
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: "):
        run(**options)


def test_the_command_tells_and_draws_what_two_networks_make_of_a_photograph(tmp_path, capsys):
    ramp = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (30, 1))
    PIL.Image.fromarray(ramp).save(tmp_path / "ramp.png")
    words = f"mnist_cnn --class 3 8 --start {tmp_path / 'ramp.png'} --beside mnist_cnn_robust"
    words += f" --steps 2 --quiet --out {tmp_path / 'out'}"
    assert command.main(words.split()) == 0
    told = capsys.readouterr().out
    assert told.count("mnist_cnn_robust takes the start for") == 2 and "fool.png" in told
    # Two small steps: the picture is the start's, whatever the networks say.
    assert told.count("has appeared, and") == 4
    figure = PIL.Image.open(tmp_path / "out" / "fool.png")
    assert figure.width > 4 * 28 and figure.height > 4 * 28  # four pictures in each of four rows
    assert (tmp_path / "out" / "mnist_cnn" / "card.json").exists()
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == ["fool.png", "mnist_cnn", "mnist_cnn_robust"]


def test_the_command_does_not_claim_what_it_cannot_see():
    far = attacks.Fooling(
        np.ones((1, 8, 8, 1), np.float32),
        np.zeros((1, 2)),
        np.array(["class 0"]),
        starts=np.zeros((1, 8, 8, 1), np.float32),
        probabilities=np.array([[0.1, 0.5, 0.9]]),
        since=np.array([1]),
    )
    model = toys.linear(np.ones((64, 3)), (8, 8, 1))
    assert command.stories(model, far)[0].endswith("for the eye to say.")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("mnist_cnn --class 11", "target"),
        ("mnist_cn --class 3", "mnist_cnn"),
        ("mnist_cnn --class 3 --start nowhere.png", "nowhere.png"),
        ("mnist_cnn --class 3 --start nowhere.zip --index 2", "nowhere.zip"),
    ],
)
def test_the_command_refuses_in_one_line(words, named, tmp_path, capsys):
    assert command.main([*words.split(), "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip()
    assert named in said and len(said.splitlines()) == 1


@pytest.mark.slow
def test_the_first_attack_fools_every_picture_of_a_data_set(tmp_path, capsys, mnist_test):
    words = (
        f"{DATA / 'mnist'} --model mnist_cnn --images 4 --binary-search-steps 8 --steps 15 --quiet"
    )
    assert lbfgs_check.main([*words.split(), "--out", str(tmp_path)]) == 0
    assert "fooled 4 of 4" in capsys.readouterr().out
    assert (tmp_path / "pairs.png").exists()
