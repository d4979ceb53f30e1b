"""What a step is lowered to: for accelerators the network's own operations, and nothing more."""

from __future__ import annotations

import ast
import pathlib
import re
from functools import partial

import jax
import numpy as np
import pytest

import rvis
from rvis import attribution, images, kernels, objectives, optimizers, struct, transforms
from rvis.ascent import Ascent, Problem
from rvis.concepts.factors import clustered
from rvis.engine import programs
from scripts.bench.unrun import unrun
from tests.characterization import table

# Convolutions up to a layer, each once forward and once back.
FORWARD = {"conv1": 1, "logits": 20}


@pytest.fixture(scope="module")
def resnet18():
    return struct.replace(rvis.load("resnet18", weights="random"), input_shape=(64, 64, 3))


def exported(model, layer, platform):
    """The text of the engine's program of a default visualization, for a platform."""
    spec = images.Fourier(model.input_shape)
    views = transforms.lucid(model.input_shape[0])
    algorithm = Ascent(spec, optimizers.adam(0.05), views=views, redirect_relu=16)
    problem = Problem(objectives.channel(layer, 0)).broadcast(2)
    keys = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(0), 2)))
    begin = partial(programs.begin, implementation="threefry2x32")
    state = jax.eval_shape(lambda k: begin(algorithm, k, None), keys)
    options = {"implementation": "threefry2x32", "width": 2, "piece": 3, "mesh": None}
    step = jax.jit(partial(programs.advance, **options), donate_argnums=3)
    arguments = (algorithm, keys, np.zeros(2, np.int32), state, model.unnamed(), problem)
    counts = np.int32(3), np.int32(1)
    if platform == "cpu":
        with kernels.stock():
            return step.lower(*arguments, *counts).as_text()
    shapes = jax.tree.map(jax.typeof, (*arguments, *counts))
    leaves, structure = jax.tree.flatten(shapes)

    def flat(*leaves):
        return jax.tree.leaves(step(*jax.tree.unflatten(structure, leaves)))

    return jax.export.export(jax.jit(flat), platforms=[platform])(*leaves).mlir_module()


@pytest.mark.parametrize("platform", ["cuda", "tpu", "cpu"])
@pytest.mark.parametrize(("layer", "forward"), FORWARD.items())
def test_a_step_has_the_networks_own_convolutions(resnet18, layer, forward, platform):
    text = exported(resnet18, layer, platform)
    assert text.count("stablehlo.convolution") == 2 * forward


# Of every algorithm: a small call that runs it, and the convolutions of its step, forward and back.
# These networks have 2 convolutions up to their last, or 6 up to `layer2`.
STEPS = {
    "step.Ascent": ("visualize_channels", 12),
    "lbfgs.BoxLBFGS": ("style_texture", 4),
    "attack.Pursuit": ("attack_bim", 4),
    "gradient.PGD": ("attack_pgd_l2", 4),
    "gradient.Momentum": ("attack_mi_fgsm", 6),
    "apgd.APGD": ("attack_apgd", 4),
    "sparse_apgd.SparseAPGD": ("attack_apgd_l1", 4),
    "rounds.Rounds": ("attack_fab", 6),
    "fab.FAB": ("attack_fab_targeted", 6),
    "square.Square": ("attack_square_l1", 2),
    "hop_skip_jump.HopSkipJump": ("attack_hop_skip_jump", 2),
    "minimum_norm.MinimumNorm": ("attack_fmn", 4),
    "deepfool.DeepFool": ("attack_deepfool", 6),
    "minimal.Search": ("attack_carlini_wagner", 4),
    "fool.UntilSure": ("attack_fool", 6),
    "universal.Shared": ("attack_universal", 4),
    "certify.Votes": ("certificates", 2),
    "coalitions.Blocks": ("attribution_shapley", 2),
    "coalitions.Listed": ("attribution_kernel_shap", 2),
    "coalitions.Permutations": ("attribution_shapley_sampling", 2),
    "coalitions.UntilSure": ("attribution_shapley_tolerance", 2),
    "stream.Mean": ("attribution_smoothgrad", 4),
    "integrated._Refining": ("refined", 4),
    "paths._Guided": ("attribution_guided_path", 4),
    "gradients._Gradient": ("attribution_gradient", 4),
    "judge._Scores": ("metrics_curves", 2),
    "factors._Lloyd": ("clusters", 0),
    "elites.MapElites": ("evolve_direct", 2),
    "matching.Shortening": ("match_in_a_ball", 4),
}


def refined():
    attribution.integrated_gradients(table.digits(), table.BARS, table.CLASSES, progress=False)


def clusters():
    rows = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    clustered(rows, 3, "relu2", key=jax.random.key(0), steps=3)


def test_every_algorithm_is_in_the_table():
    found = set()
    for path in pathlib.Path(rvis.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and "Protocol" not in map(ast.unparse, node.bases):
                if any(isinstance(f, ast.FunctionDef) and f.name == "step" for f in node.body):
                    found.add(f"{path.stem}.{node.name}")
    assert found - {"queue._Once"} == set(STEPS) - {"gradients._Gradient"}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_for_accelerators_is_the_networks_own(name, monkeypatch):
    # Labels with which blank logits agree.
    monkeypatch.setattr(table, "own_class", lambda model, images: np.zeros(len(images), int))
    call, convolutions = STEPS[name]
    with unrun() as seen:
        (table.TABLE[call].run if call in table.TABLE else globals()[call])()
    traced, _, leaves = seen[name]
    for platform in ("cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.convolution") == convolutions
        assert not re.search(r"feature_group_count = ([2-9]|1\d)", text)
        assert "f64" not in text
        assert "callback" not in text and "custom_call" not in text
        # States are donated, and no weights are captured.
        assert text.count("tf.aliasing_output") == leaves
        assert max(map(len, text.splitlines())) < 1_000_000
