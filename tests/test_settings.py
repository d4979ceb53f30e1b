"""The settings of JAX that a user may have: strict ones, old keys, no jit, networks in half precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import attacks, attribution, evolve, images, objectives, style, transforms
from tests import toys
from tests.attacks import small

QUIET = {"progress": False}
PICTURES, LABELS = small.images(3)
NETWORK = small.network()
POINTWISE = toys.pointwise()


def half_apply(params, images, **options):
    """Logits in the precision of the weights."""
    return small.apply(params, images.astype(params["dense"].dtype), **options)


def halved(dtype):
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), NETWORK.params)
    return rvis.Model(params, half_apply, NETWORK.layers, small.SHAPE, NETWORK.classes, "halved")


BOUNDED = {
    "fgsm": (attacks.fgsm, {}),
    "bim": (attacks.bim, {"steps": 3}),
    "pgd": (attacks.pgd, {"steps": 3}),
    "pgd_l2": (attacks.pgd, {"steps": 3, "norm": "l2"}),
    "apgd": (attacks.apgd, {"steps": 6}),
    "apgd_dlr": (attacks.apgd, {"steps": 6, "loss": "dlr", "norm": "l2"}),
    "square": (attacks.square, {"steps": 6}),
    "square_l2": (attacks.square, {"steps": 6, "norm": "l2"}),
}
SMALLEST = {
    "deepfool": (attacks.deepfool, {"steps": 8}),
    "carlini_wagner": (attacks.carlini_wagner, {"steps": 8, "binary_search_steps": 2}),
    "lbfgs": (attacks.lbfgs, {"steps": 10, "binary_search_steps": 8}),
}


AGAIN = {
    jnp.bfloat16: ("pgd_l2", "square_l2"),
    jnp.float16: ("fgsm", "bim", "pgd_l2", "apgd_dlr", "square", "square_l2", "carlini_wagner"),
}
"""Attacks whose steps another attack takes too, in this format or with this norm in the other."""


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=[pytest.mark.slow] * (name in AGAIN[dtype]))
        for name in (*BOUNDED, *SMALLEST)
        for dtype in (jnp.bfloat16, jnp.float16)
    ],
)
def test_an_attack_takes_a_network_in_half_precision(name, dtype):
    model = halved(dtype)
    labels = np.asarray(model(PICTURES)).argmax(1)
    attack, options = (BOUNDED | SMALLEST)[name]
    radius = {} if name in SMALLEST else {"eps": 4.0 if options.get("norm") == "l2" else 0.5}
    result = attack(model, PICTURES, labels, **radius, **options, **QUIET)
    assert result.images.dtype == np.float32 and np.isfinite(result.images).all()
    assert result.images.min() >= 0 and result.images.max() <= 1
    assert result.success.any()
    wrong = np.asarray(model(result.images)).argmax(1) != labels
    assert wrong[result.success].all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_robustness_of_a_network_in_half_precision(dtype):
    model = halved(dtype)
    labels = np.asarray(model(PICTURES)).argmax(1)
    curve = attacks.robustness(model, PICTURES, labels, epsilons=[0, 0.5], steps=3, **QUIET)
    assert curve.accuracies.shape == (2,) and curve.accuracies[0] == 1 and curve.accuracies[1] < 1


def visualized(**options):
    # Without jit each operation is a program of its own: those of all views and of a Fourier image
    # are many, and run so in the examples of their docstrings.
    views = (transforms.Jitter(1), transforms.Noise(0.1))
    objective = objectives.channel("relu", [0, 2])
    found = rvis.visualize(
        POINTWISE, objective, image="pixel", transforms=views, steps=2, **QUIET, **options
    )
    return found.images


CALLS = {
    "visualize": visualized,
    "pgd": lambda **o: (
        attacks.pgd(NETWORK, PICTURES, LABELS, eps=0.1, steps=2, **QUIET, **o).images
    ),
    "apgd": lambda **o: (
        attacks.apgd(NETWORK, PICTURES, LABELS, eps=0.1, steps=3, **QUIET, **o).images
    ),
    "square": lambda **o: (
        attacks.square(NETWORK, PICTURES, LABELS, eps=0.1, steps=3, **QUIET, **o).images
    ),
    "smoothgrad": lambda **o: (
        attribution.smoothgrad(NETWORK, PICTURES, 1, samples=3, **QUIET, **o).maps
    ),
    "rise": lambda **o: (
        attribution.rise(NETWORK, PICTURES, 1, samples=4, grid=2, **QUIET, **o).maps
    ),
}
WITHOUT_KEY = {
    "deepfool": lambda: attacks.deepfool(NETWORK, PICTURES, LABELS, steps=3, **QUIET).images,
    "gradient": lambda: attribution.gradient(NETWORK, PICTURES, 1, **QUIET).maps,
    "occlusion": lambda: (
        attribution.occlusion(NETWORK, PICTURES, 1, window=2, stride=2, **QUIET).maps
    ),
    "record": lambda: rvis.record(NETWORK, PICTURES, "hidden")["hidden"],
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_old_key_is_the_typed_one(call):
    old, typed = call(key=jax.random.PRNGKey(7)), call(key=jax.random.key(7))
    np.testing.assert_array_equal(old, typed)
    assert np.any(old != call(key=8))


MANY = ("pgd", "square", "rise")
"""Without jit they are hundreds of programs: `apgd` runs as the first two, `smoothgrad` as RISE."""


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        pytest.param(
            name, setting, marks=[pytest.mark.slow] * (setting is jax.disable_jit and name in MANY)
        )
        for name in (*CALLS, *WITHOUT_KEY)
        for setting in (jax.debug_nans, jax.disable_jit)
    ],
)
def test_a_setting_changes_no_result(name, setting):
    call = (CALLS | WITHOUT_KEY)[name]
    usual = call()
    with setting(True):
        np.testing.assert_allclose(call(), usual, rtol=1e-3, atol=1e-5)


OTHERS = {
    "model": lambda: NETWORK(PICTURES),
    "targeted": lambda: attacks.pgd(NETWORK, PICTURES, LABELS, eps=0.1, target=1, steps=1, **QUIET),
    "carlini_wagner": lambda: attacks.carlini_wagner(
        NETWORK, PICTURES, LABELS, steps=1, binary_search_steps=1, **QUIET
    ),
    "lbfgs": lambda: attacks.lbfgs(
        NETWORK, PICTURES, LABELS, steps=1, binary_search_steps=1, **QUIET
    ),
    "robustness": lambda: attacks.robustness(
        NETWORK, PICTURES, LABELS, epsilons=[0.1], steps=1, **QUIET
    ),
    "fool": lambda: attacks.fool(NETWORK, 1, steps=1, **QUIET),
    "integrated_gradients": lambda: attribution.integrated_gradients(
        NETWORK, PICTURES, 0, steps=3, **QUIET
    ),
    "grad_cam": lambda: attribution.grad_cam(POINTWISE, PICTURES, 0, layer="relu", **QUIET),
    "shapley": lambda: attribution.shapley(NETWORK, PICTURES, 0, players=4, **QUIET),
    "shapley_sampling": lambda: attribution.shapley_sampling(
        NETWORK, PICTURES, 0, players=4, permutations=4, **QUIET
    ),
    "sweep": lambda: rvis.sweep(POINTWISE, "relu", [0, 1], steps=1, **QUIET),
    "deepdream": lambda: rvis.deepdream(
        POINTWISE, PICTURES[0], "relu", octaves=1, steps=1, **QUIET
    ),
    "invert": lambda: rvis.invert(POINTWISE, PICTURES, "relu", steps=1, **QUIET),
    "match": lambda: rvis.match(NETWORK, PICTURES[0], PICTURES[1], "hidden", steps=1, **QUIET),
    "style": lambda: style.transfer(
        POINTWISE,
        *PICTURES[:2],
        style_layers=["relu"],
        content_layers=["relu"],
        steps=1,
        **QUIET,
    ),
    "map_elites": lambda: evolve.map_elites(POINTWISE, generations=1, **QUIET),
}


@pytest.mark.parametrize("name", [*CALLS, *WITHOUT_KEY, *OTHERS])
def test_no_transfer_is_implicit(name):
    call = (CALLS | WITHOUT_KEY | OTHERS)[name]
    with jax.transfer_guard("disallow"):
        call()


def strictly(call):
    with (
        jax.enable_x64(True),
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
    ):
        return call()


FAMILIES = """alexnet convnext_tiny deit_tiny_distilled_patch16_224 densenet121 efficientnet_b0
    efficientnet_lite0 googlenet_bvlc inceptionv1 mnist_cnn mobilenetv2_035 preactresnet18 resnet18
    squeezenet1_0 vgg11 vit_base_patch16_siglip_224 vit_small_patch14_reg4_dinov2
    wideresnet28_10""".split()


# Which traces its 120 layers for seconds, as `test_families.py` does, strictly where all tests are.
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "densenet121")) for n in FAMILIES]
)
def test_a_family_promotes_nothing(name):
    model = toys.outline(name)
    pictures = jax.ShapeDtypeStruct((2, *model.input_shape), jnp.float32)
    out = strictly(lambda: jax.eval_shape(model.apply, model.params, pictures))
    assert out.dtype == jnp.float32


VIEWS = {
    "lucid": lambda: transforms.lucid(16),
    "moves": lambda: (transforms.Pad(2), transforms.Jitter(2), transforms.Noise(0.1)),
    "turns": lambda: (transforms.Rotate((-5.0, 5.0)), transforms.Scale((0.9, 1.1))),
    "parts": lambda: transforms.maco(16),
    "roll": lambda: (transforms.Roll(3),),
}


@pytest.mark.parametrize("chain", VIEWS.values(), ids=VIEWS)
def test_strict_settings_draw_the_same_views(chain):
    pictures = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)

    def drawn():
        # Traced, as in a run: what promotes is refused there, and a program is compiled once.
        return jax.jit(lambda shown: transforms.apply(chain(), 1, shown))(jnp.asarray(pictures))

    usual, strict = drawn(), strictly(drawn)
    assert strict.dtype == usual.dtype == jnp.float32
    np.testing.assert_allclose(strict, usual, atol=1e-5)


IMAGES = {
    "pixel": lambda: images.Pixel((16, 16, 3)),
    "fourier": lambda: images.Fourier((16, 16, 3)),
    "maco": lambda: images.MACO((16, 16, 3)),
    "pyramid": lambda: images.named("pyramid", (16, 16, 3)),
    "cppn": lambda: images.CPPN((16, 16, 3)),
    "rgba": lambda: images.named("rgba", (16, 16, 3)),
}


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_strict_settings_start_from_the_same_picture(image):
    def decoded():
        kind = image()
        return jax.jit(lambda: kind.decode(kind.init(3)))()

    usual, strict = decoded(), strictly(decoded)
    for one, other in zip(jax.tree.leaves(strict), jax.tree.leaves(usual), strict=True):
        assert one.dtype == other.dtype == jnp.float32
        np.testing.assert_allclose(one, other, atol=1e-5)
