"""The sections of the gallery: the code they print is complete, and their figures come again."""

import builtins
import dataclasses
import dis
import json
import pathlib
import re
import types

import numpy as np
import PIL.Image
import pytest

import rvis
from rvis.models.weights import convert
from scripts import gallery
from scripts.clip_scenes import scenes
from scripts.gallery import __main__ as command
from scripts.gallery import measures, networks, samples
from scripts.gallery.base import PRELUDE, SIZES
from scripts.gallery.sections import clip as clip_section

GUIDES = pathlib.Path(__file__).parents[3] / "scripts" / "docs" / "pages"

SECTIONS = gallery.sections(networks.cast(extra=False))  # the shipped networks' own
PARTS = [
    pytest.param(part, id=f"{section.name}-{part.name}")
    for section in SECTIONS
    for part in section.parts
]

ORDER = (
    "noise fields depth inside dream patches neighbours inversion clip style attribution groups "
    "fooling evolution why robust"
).split()


def test_the_sections_are_in_the_order_of_the_lectures():
    assert [section.name for section in SECTIONS] == ORDER == list(gallery.NAMES)


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
    stems = [(section.name, part.name) for section in SECTIONS for part in section.parts]
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
    shown = guides + "".join(part.values[0].code("full") for part in PARTS)
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
    (section,) = (s for s in SECTIONS if s.name == "fields")
    section = dataclasses.replace(section, parts=section.parts[:1])
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
def folder(tmp_path):
    """Photographs, and beside them files of weights, which nothing reads."""
    rng = np.random.default_rng(0)
    for name in ("school_bus", "tabby"):
        picture = PIL.Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8))
        picture.save(tmp_path / f"{name}.png")
    for name in ("googlenet_bvlc.safetensors", "vgg16_trunk.pth", "resnet18.pth", "notes.pth"):
        (tmp_path / name).touch()
    return str(tmp_path)


def test_networks_of_a_folder_get_their_parts(folder, monkeypatch):
    monkeypatch.setattr(networks, "load", lambda name: types.SimpleNamespace(classes=("a",) * 1000))
    alone = networks.cast(folder=folder, extra=False)
    assert (networks.title(alone.inside), networks.title(alone.trunk)) == (
        "googlenet_bvlc",
        "vgg16",
    )
    assert [networks.title(name) for name in alone.judges] == ["googlenet_bvlc", "resnet18"]
    assert [networks.title(name) for name in alone.more] == ["resnet18"]
    beside = networks.cast(folder=folder, photos=folder)
    assert (beside.trunk, beside.photos) == ("vgg16", folder)
    assert beside.judges == ("efficientnet_lite0", *alone.judges)


def test_every_section_is_in_a_quick_run_and_smaller_there():
    assert all(any(part.quick for part in section.parts) for section in SECTIONS)
    for part in (part.values[0] for part in PARTS):
        quick, full = (part.arguments(size) for size in SIZES)
        assert quick.keys() == full.keys()
        for name in ("steps", "size", "side", "count", "generations", "permutations"):
            assert np.all(quick.get(name, 0) <= full.get(name, 0)), (part.name, name)


def test_a_photograph_is_found_by_name_or_an_animal_stands_in(folder):
    bus = networks.photograph(folder, "ostrich school_bus tabby", 32)
    assert bus.shape == (32, 32, 3) and bus.dtype == np.float32
    assert not np.array_equal(bus, networks.photograph(folder, "tabby", 32))
    animals = samples.load("tiny_imagenet_animals")
    fish = networks.photograph(folder, "ostrich goldfish tabby", 64)
    first = np.flatnonzero(animals.labels == animals.classes.index("goldfish"))[:1]
    np.testing.assert_allclose(fish, animals.floats(first)[0], atol=1e-6)


def test_a_judge_sees_its_own_samples():
    animals = samples.load("tiny_imagenet_animals").take(slice(0, None, 12))
    names = [animals.classes[i] for i in animals.labels]
    assert networks.seen("tiny_resnet", animals.floats(), names).mean() > 0.6
    assert networks.seen("tiny_resnet", animals.floats(), names[::-1]).mean() < 0.4


def test_parts_draw_and_measure_on_small_networks():
    (section,) = (section for section in SECTIONS if section.name == "fooling")
    shark, fish = section.parts[1:]
    arguments = shark.arguments("quick") | {"steps": 10}
    row = shark.tell(shark.draw(**arguments)).table["the network itself"]
    assert row["after"] > row["probability before"] and row["SSIM"] > 0.5
    told = fish.tell(fish.draw(count=2, steps=2)).table
    assert set(told) == {"photographs", "tiny_resnet", "tiny_resnet_robust"}


def test_a_file_named_as_its_architecture_is_loaded(tmp_path):
    model = rvis.load("mnist_cnn", weights="random")
    convert.save(tmp_path / "mnist_cnn.safetensors", model, {})
    networks.load.cache_clear()
    found = networks.load(str(tmp_path / "mnist_cnn.safetensors"))
    np.testing.assert_array_equal(found(np.ones((1, 28, 28, 1))), model(np.ones((1, 28, 28, 1))))


def test_without_the_extra_one_line_says_what_it_adds(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(networks, "installed", lambda: False)
    monkeypatch.setattr(gallery, "make", lambda out, sections, **options: len(sections) - 16)
    assert command.main(["--quick", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err == f"gallery: {networks.WITHOUT}\n"


@pytest.mark.parametrize("flag", ["--photos", "--networks"])
def test_a_folder_without_any_is_named(flag, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(networks, "installed", lambda: True)
    assert command.main([flag, str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert flag in capsys.readouterr().err


def test_the_middle_is_the_last_layer_of_fourteen_places():
    assert networks.middle(rvis.load("googlenet_bvlc", weights="random")) == "inception4e"


@pytest.mark.parametrize("shape", scenes.SHAPES)
def test_a_drawn_shape_is_told_by_its_outline(shape):
    facts = {"shape": tuple(scenes.SHAPES).index(shape), "colour": 5, "position": 6, "size": 2}
    facts = {name: np.asarray([value]) for name, value in (facts | {"count": 0}).items()}
    images, _ = scenes.draw(np.random.default_rng(1), facts | {"background": np.asarray([0])})
    told = (tuple(scenes.COLOURS)[5], shape, tuple(scenes.POSITIONS)[6])
    assert clip_section._outline(images[0], told, 6) == facts["shape"][0]
