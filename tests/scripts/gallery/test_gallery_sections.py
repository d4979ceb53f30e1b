"""The sections of the gallery: the code they print is complete, and their figures come again."""

import builtins
import dis
import json
import pathlib
import re

import numpy as np
import pytest

import rvis
from scripts import gallery
from scripts.gallery import measures, samples
from scripts.gallery.base import PRELUDE, SIZES

README = pathlib.Path(__file__).parents[3] / "README.md"

PARTS = [
    pytest.param(part, id=f"{section.name}-{part.name}")
    for section in gallery.SECTIONS
    for part in section.parts
]

ORDER = (
    "noise fields depth objectives regularization diversity dream patches neighbours inversion "
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
def test_every_public_function_is_shown_in_a_section_or_a_recipe(name):
    found = rvis
    for part in name.split("."):
        found = getattr(found, part)
    shown = README.read_text() + "".join(part.values[0].code("default") for part in PARTS)
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
