"""The sections of the gallery: the code they print is complete, and their figures come again."""

import builtins
import dis
import json
import pathlib
import re

import numpy as np
import PIL.Image
import pytest

import rvis
from rvis.models.weights import convert
from scripts import gallery
from scripts.gallery import __main__ as command
from scripts.gallery import measures, networks, samples
from scripts.gallery.base import PRELUDE, SIZES
from scripts.gallery.sections import real

GUIDES = pathlib.Path(__file__).parents[3] / "scripts" / "docs" / "pages"

PARTS = [
    pytest.param(part, id=f"{section.name}-{part.name}")
    for section in gallery.SECTIONS
    for part in section.parts
]

ORDER = (
    "real noise fields depth objectives regularization diversity dream patches neighbours inversion "
    "clip style attribution groups fooling evolution manifold matching robust synthesis"
).split()


def test_the_sections_are_in_the_order_of_the_lectures():
    assert [section.name for section in gallery.SECTIONS] == ORDER


@pytest.fixture(scope="module")
def prelude():
    names = dict(vars(builtins))
    exec(PRELUDE, names)
    return set(names)


def _free(code):
    """The names that a piece of code takes from outside, those of its inner functions too."""
    compiled = [compile(code, "part", "exec")]
    loaded, stored = set(), set()
    while compiled:
        one = compiled.pop()
        compiled += [constant for constant in one.co_consts if hasattr(constant, "co_names")]
        for instruction in dis.get_instructions(one):
            if instruction.opname in ("LOAD_NAME", "LOAD_GLOBAL"):
                loaded.add(instruction.argval)
            elif instruction.opname.startswith("STORE"):
                stored.add(instruction.argval)
    return loaded - stored


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("part", PARTS)
def test_the_code_of_a_part_needs_the_prelude_alone(part, size, prelude):
    assert _free(part.code(size)) <= prelude


@pytest.mark.parametrize("part", PARTS)
def test_a_part_says_what_is_seen(part):
    assert len(part.caption) > 20
    assert len(part.alt) > 20


def test_every_section_has_a_name_of_its_own():
    stems = [(section.name, part.name) for section in gallery.SECTIONS for part in section.parts]
    assert len(set(stems)) == len(stems)


PUBLIC = """
load list_models from_linen from_nnx Model record visualize sweep deepdream invert match train
objectives.channel objectives.neuron objectives.layer objectives.direction objectives.logit
objectives.tensor_direction objectives.probability objectives.diversity objectives.match
objectives.gram analysis.deconv.top_activations
attribution.gradient attribution.input_x_gradient attribution.integrated_gradients
attribution.smoothgrad attribution.vargrad attribution.guided_backprop attribution.deconvnet
attribution.grad_cam attribution.grad_cam_plus attribution.occlusion attribution.rise
attribution.shapley attribution.shapley_sampling analysis.deconv.plates analysis.deconv.reconstruct
attacks.fgsm attacks.bim attacks.pgd attacks.apgd attacks.deepfool attacks.carlini_wagner
attacks.lbfgs attacks.square attacks.fool attacks.verify evolve.map_elites
style.transfer style.texture clip.load clip.encode_text clip.invert concepts.groups.factorize
synthesis.generate synthesis.inpaint synthesis.translate synthesis.super_resolve synthesis.sketch
synthesis.paint analysis.manifold.intrinsic_dimension analysis.manifold.local_dimension analysis.metrics.insertion
analysis.metrics.deletion analysis.metrics.sanity_check faithfulness plotting.grid plotting.overlay plotting.spritemap
plotting.films.film plotting.reports.layer_page
""".split()


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_function_is_shown_in_a_section_or_a_guide(name):
    found = rvis
    for part in name.split("."):
        found = getattr(found, part)
    guides = "".join(page.read_text(encoding="utf-8") for page in GUIDES.rglob("*.md"))
    shown = guides + "".join(part.values[0].code("default") for part in PARTS)
    assert re.search(rf"\b{name.rsplit('.')[-1]}\b\(?", shown)


@pytest.mark.parametrize("name", samples.NAMES)
def test_samples_are_equally_many_of_every_class_of_the_networks(name):
    found = samples.load(name)
    model = {"cifar10": "cifar10_resnet", "mnist": "mnist_cnn"}.get(name, "tiny_resnet")
    assert found.classes == rvis.load(model).classes
    counts = [int((found.labels == label).sum()) for label in range(len(found.classes))]
    assert len(set(counts)) == 1


def test_samples_are_seen_rightly():
    found = samples.load("cifar10")
    logits = rvis.load("cifar10_resnet")(found.floats(slice(0, 800, 4)))
    assert (logits.argmax(1) == found.labels[::4]).mean() > 0.8


def test_two_runs_give_the_same_figures(tmp_path):
    (section,) = (s for s in gallery.SECTIONS if s.name == "fields")
    for run in ("one", "two"):
        gallery.make(tmp_path / run, [section], size="quick")
    one, two = (
        json.loads((tmp_path / run / "01_fields_filters.json").read_text())
        for run in ("one", "two")
    )
    assert one | {"seconds": 0} == two | {"seconds": 0}


def test_energy_above_a_quarter_cycle_is_fine():
    x = np.arange(32)
    for period, share in ((16, 0.0), (2, 1.0)):
        wave = np.broadcast_to(np.cos(2 * np.pi * x / period)[None, :, None], (1, 32, 32, 1))
        assert measures.fine(wave) == pytest.approx(share, abs=1e-9)


@pytest.fixture
def photographs(tmp_path):
    """Two pictures in a folder, and beside it one with files of weights, which nothing reads."""
    for folder in ("photographs", "networks"):
        (tmp_path / folder).mkdir()
    rng = np.random.default_rng(0)
    for name in "ab":
        picture = PIL.Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8))
        picture.save(tmp_path / "photographs" / f"{name}.png")
    for name in ("resnet18.safetensors", "vgg16_trunk.pth", "resnet.txt", "notes.safetensors"):
        (tmp_path / "networks" / name).touch()
    return tmp_path


@pytest.fixture
def tiny(monkeypatch):
    """The 64-pixel network in the place of all real ones."""
    monkeypatch.setattr(networks, "load", lambda name: rvis.load("tiny_resnet"))
    monkeypatch.setattr(networks, "CLASSES", ("goldfish", "monarch"))


def test_the_parts_of_real_networks_draw_and_measure(photographs, tiny):
    folder = str(photographs / "photographs")
    first, seen, dream = real.section(photos=folder).parts
    made = {
        "first": first.tell(first.draw(networks.CLASSES, {"alexnet layer3": (1,)}, steps=20)),
        "photographs": seen.tell(seen.draw(folder, target="goldfish", radius=8.0, steps=10)),
    }
    rows = made["first"].table
    assert list(rows) == [f"efficientnet_lite0 {n}" for n in networks.CLASSES] + [
        "alexnet layer3:1"
    ]
    assert rows["efficientnet_lite0 goldfish"]["probability"] > 0.5
    assert all(0 <= row["share of 51 photographs below"] <= 1 for row in rows.values())
    for row in made["photographs"].table.values():
        assert row["target after"] > row["target before"]
        assert 1 < row["largest change / 255"] < 8.01
    told = real.SECTION.judge({name: outcome.table for name, outcome in made.items()})
    assert told.text.count("of 2") == 2
    dreams = dream.tell(dream.draw(folder, layers=["alexnet layer3"], octaves=2))
    assert dreams.table["alexnet layer3"]["squared activation, times that of the photograph"] > 1


def test_networks_of_a_folder_are_parts_of_their_own(photographs, tiny):
    section = real.section(folder=str(photographs / "networks"), installed=False)
    assert [part.name for part in section.parts] == ["resnet18", "vgg16_trunk"]
    part = section.parts[0]
    path = part.arguments("quick")["path"]
    assert path.endswith("resnet18.safetensors")
    outcome = part.tell(part.draw(path, networks.CLASSES, units=1, steps=1))
    assert len(outcome.table) == 3 and "resnet18 goldfish" in outcome.table
    assert section.verdict({part.name: outcome.table}).holds == "not measured"


def test_a_file_named_as_its_architecture_is_loaded(tmp_path):
    model = rvis.load("mnist_cnn", weights="random")
    convert.save(tmp_path / "mnist_cnn.safetensors", model, {})
    networks.load.cache_clear()
    found = networks.load(str(tmp_path / "mnist_cnn.safetensors"))
    np.testing.assert_array_equal(found(np.ones((1, 28, 28, 1))), model(np.ones((1, 28, 28, 1))))


def test_without_the_extra_one_line_says_what_it_adds(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(networks, "installed", lambda: False)
    assert command.main(["--quick", "--only", "real", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err == f"gallery: {networks.WITHOUT}\n"
    page = (tmp_path / "index.html").read_text()
    assert "Not made: the extra imagenet adds" in page and not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("flag", ["--photos", "--networks"])
def test_a_folder_without_any_is_named(flag, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(networks, "installed", lambda: True)
    assert command.main([flag, str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert flag in capsys.readouterr().err


def test_the_middle_is_the_last_layer_of_fourteen_places():
    assert networks.middle(rvis.load("googlenet_bvlc", weights="random")) == "inception4e"
