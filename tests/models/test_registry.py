"""Models by name, by file and by module: what is found, what it computes, and what is refused."""

from __future__ import annotations

import functools
import hashlib
import json
import zipfile

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from rvis.models import adapters, architectures, registry, taps
from rvis.models.apply import LinenApply, normalised
from rvis.models.families.mnist import MnistCNN
from rvis.models.families.resnet import ResNet
from rvis.models.weights import convert
from rvis.types import Model

CONFIG = {"widths": (2, 3), "dense": 4}
DIGITS = tuple("0123456789")


def small(key=0, **keywords):
    return architectures.build("mnist_cnn", config=CONFIG, weights="random", key=key, **keywords)


def equal(left, right):
    same_params = jax.tree.map(np.array_equal, left.params, right.params)
    return all(jax.tree.leaves(same_params)) and same_structure(left, right)


def same_structure(left, right):
    fields = ("apply", "layers", "input_shape", "classes")
    return all(getattr(left, field) == getattr(right, field) for field in fields)


def write_folder(folder, model, **changes):
    """A shipped model's folder: weights and card, whose fields may be changed or dropped."""
    folder.mkdir(parents=True)
    about = registry.describe(model)
    convert.save(folder / "weights.safetensors", model, about)
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    card = {**about, "sha256": digest, "accuracy": 0.5, **changes}
    card = {field: value for field, value in card.items() if value is not None}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A shelf with two shipped models, which stands in for the package's own."""
    write_folder(tmp_path / "shelf" / "zebra", small(1, classes=DIGITS))
    write_folder(tmp_path / "shelf" / "apple", small(2))
    (tmp_path / "shelf" / "half").mkdir()
    monkeypatch.setattr(registry, "_shelves", lambda: (tmp_path / "none", tmp_path / "shelf"))
    return tmp_path / "shelf"


# --- shipped models --------------------------------------------------------------------------


def test_a_shipped_model_is_what_was_saved(shelf):
    assert equal(registry.load("zebra"), small(1, classes=DIGITS))


def test_a_shipped_model_bears_its_name(shelf):
    assert registry.load("apple").name == "apple"


def test_shipped_models_are_listed_before_architectures(shelf):
    assert registry.list_models() == ("apple", "zebra", *architectures.ARCHITECTURES)


def test_a_shipped_model_named_as_an_architecture_is_listed_once(shelf):
    write_folder(shelf / "mnist_cnn", small(3))
    assert registry.list_models().count("mnist_cnn") == 1


def test_a_shipped_model_goes_before_an_architecture_of_its_name(shelf):
    write_folder(shelf / "mnist_cnn", small(3))
    assert equal(registry.load("mnist_cnn"), small(3))


def test_weights_go_before_a_shipped_model_of_the_name(shelf):
    write_folder(shelf / "mnist_cnn", small(3))
    assert registry.load("mnist_cnn", weights="random").apply == LinenApply(MnistCNN())


def test_the_first_shelf_that_stands_counts(shelf, tmp_path, monkeypatch):
    write_folder(tmp_path / "wheel" / "apple", small(7))
    monkeypatch.setattr(registry, "_shelves", lambda: (tmp_path / "wheel", shelf))
    assert equal(registry.load("apple"), small(7))


def test_models_load_from_inside_a_zip(shelf, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "wheel.zip", "w") as archive:
        for file in (shelf / "zebra").iterdir():
            archive.write(file, f"rvis/weights/zebra/{file.name}")
    inside = zipfile.Path(tmp_path / "wheel.zip", "rvis/weights/")
    monkeypatch.setattr(registry, "_shelves", lambda: (inside,))
    assert equal(registry.load("zebra"), small(1, classes=DIGITS))


def test_a_card_tells_what_its_file_holds(shelf):
    assert registry.card("zebra") == json.loads((shelf / "zebra" / "card.json").read_text())


def test_a_card_can_be_had_by_folder(shelf):
    assert registry.card(shelf / "apple") == registry.card("apple")


def test_an_unknown_card_gets_the_nearest_names(shelf):
    with pytest.raises(ValueError, match=r"^name: unknown 'zebbra'; did you mean 'zebra'"):
        registry.card("zebbra")


def test_a_folder_loads_by_its_path(shelf):
    model = registry.load(str(shelf / "zebra"))
    assert equal(model, small(1, classes=DIGITS)) and model.name == "zebra"


BROKEN = {
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), r"weights\.safetensors was"),
    "no card": (lambda f: (f / "card.json").unlink(), r"a card in JSON"),
    "card no JSON": (lambda f: (f / "card.json").write_text("{"), r"a card in JSON"),
    "card no mapping": (lambda f: (f / "card.json").write_text("3"), r"'architecture', 'sha256'"),
    "card empty": (lambda f: (f / "card.json").write_text("{}"), r"'architecture', 'sha256'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_refused(case, tmp_path):
    change, message = BROKEN[case]
    folder = write_folder(tmp_path / "model", small())
    change(folder)
    with pytest.raises(ValueError, match=f"^path: .*{message}"):
        registry.load(folder)


CARDS = {
    "checksum": ({"sha256": "0" * 64}, "SHA-256"),
    "no checksum": ({"sha256": None}, "sha256"),
    "no architecture": ({"architecture": None}, "architecture"),
    "unknown architecture": ({"architecture": "mnist_cn"}, "did you mean 'mnist_cnn'"),
    "config": ({"config": {"width": 3}}, "did you mean 'widths'"),
    "config that does not fit": ({"config": {"widths": [2, 4], "dense": 4}}, "misshapen"),
    "config no mapping": ({"config": 3}, "config: a mapping"),
    "classes": ({"classes": ["a", "b"]}, "classes: 10 names"),
    "mean": ({"mean": [1, 2]}, "mean: one number"),
    "std": ({"std": [0]}, "std: numbers above 0"),
    "input shape": ({"input_shape": [28]}, "input_shape"),
}


@pytest.mark.parametrize("case", CARDS)
def test_a_card_that_does_not_fit_is_refused(case, tmp_path):
    changes, message = CARDS[case]
    folder = write_folder(tmp_path / "model", small(), **changes)
    with pytest.raises(ValueError, match=f"(?s)^path: .*{message}"):
        registry.load(folder)


# --- architectures and files -----------------------------------------------------------------


def test_an_architecture_without_weights_says_what_to_give():
    with pytest.raises(ValueError, match=r"^weights: 'resnet50' is an architecture.*'random'"):
        registry.load("resnet50")


UNKNOWN = {
    "misspelt": ("resnet5O", {}, r"^name_or_path: unknown 'resnet5O'; did you mean 'resnet50'"),
    "misspelt with weights": ("vgg61", {"weights": "random"}, r"^name_or_path: .*'vgg16'"),
    "shipped name misspelt": ("aple", {}, r"^name_or_path: unknown 'aple'; did you mean 'apple'"),
    "empty": ("", {}, r"^name_or_path: unknown ''"),
    "no such file": ("nowhere.safetensors", {}, r"^path: .*nowhere\.safetensors"),
    "no such folder": ("nowhere/deeper/model", {}, r"^path: .*nowhere.deeper.model"),
    "no such file of two parts": (
        "a/b.pth",
        {},
        r"^name_or_path: .*file.* a/b\.pth.*hf-hub:a/b\.pth",
    ),
    "no such model of a folder": ("FOLDER/model", {}, r"^name_or_path: .*FOLDER/model.*hf-hub:"),
    "no such weights": ("resnet18", {"weights": "nowhere.pth"}, r"^path: .*nowhere\.pth"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_an_unknown_name_gets_the_nearest_or_the_path(case, shelf, tmp_path, monkeypatch):
    name, keywords, message = UNKNOWN[case]
    (tmp_path / "FOLDER").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        registry.load(name, **keywords)


MISTYPED = {
    "name": ((3,), {}, "name_or_path"),
    "weights": (("mnist_cnn",), {"weights": 3}, "weights"),
    "key": (("mnist_cnn",), {"weights": "random", "key": "seven"}, "key"),
}


@pytest.mark.parametrize("case", MISTYPED)
def test_a_mistyped_argument_is_named(case):
    arguments, keywords, message = MISTYPED[case]
    with pytest.raises(TypeError, match=f"^{message}: "):
        registry.load(*arguments, **keywords)


@pytest.mark.parametrize("kind", ["file", "path", "mapping", "jax mapping"])
def test_weights_come_from_a_file_or_a_mapping(kind, tmp_path):
    state = convert.from_variables(registry.load("mnist_cnn", weights="random", key=4).params)
    path = tmp_path / "theirs.safetensors"
    save_file({f"module.{name}": value for name, value in state.items()}, path)
    given = {
        "file": str(path),
        "path": path,
        "mapping": state,
        "jax mapping": {name: jnp.asarray(value) for name, value in state.items()},
    }
    model = registry.load("mnist_cnn", weights=given[kind])
    assert equal(model, registry.load("mnist_cnn", weights="random", key=4))


def test_a_saved_model_loads_by_its_path(tmp_path):
    model = small(1, classes=DIGITS, mean=(0.25,), std=(3.0,))
    convert.save(tmp_path / "mine.safetensors", model, registry.describe(model))
    loaded = registry.load(tmp_path / "mine.safetensors")
    assert equal(loaded, model) and loaded.name == "mine"


def test_a_saved_model_loads_as_its_architecture_s_weights(tmp_path):
    model = small(1, mean=(0.25,))
    convert.save(tmp_path / "mine.safetensors", model, registry.describe(model))
    assert equal(registry.load("mnist_cnn", weights=tmp_path / "mine.safetensors"), model)


def test_a_file_that_does_not_say_its_architecture_is_refused(tmp_path):
    save_file({"a": np.ones(1)}, tmp_path / "theirs.safetensors")
    with pytest.raises(ValueError, match=r"load\(ARCHITECTURE, weights='.*theirs\.safetensors'\)"):
        registry.load(tmp_path / "theirs.safetensors")


def test_what_another_s_header_says_is_ignored(tmp_path):
    model = small(1)
    path = tmp_path / "theirs.safetensors"
    for about in (
        {"architecture": "mnist_cnn", "mean": "that of ImageNet", "config": "{"},
        {"architecture": "mnist_cnn", "mean": "[1", "format": "pt"},
        {"mean": "[" * 100_000, "std": "", "config": "{}", "input_shape": "[]", "classes": "[]"},
    ):
        save_file(convert.from_variables(small(1).params), path, about)
        with pytest.raises(ValueError, match="does not say of which architecture it is"):
            registry.load(path)
        state = convert.read_state_dict(path)[0]
        assert equal(architectures.build("mnist_cnn", weights=state, config=CONFIG), model)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"stages": [10**6] * 4}, "config: stages: at most"),
        ({"stages": [10**4] * 4}, "config: stages of at most 1000 blocks"),
        ({"stages": [10**30] * 4}, "config: stages: less than"),
        ({"widths": [10**9] * 4}, "config: widths: at most"),
        ({"classes": 10**9}, "config: classes: at most"),
        ({"bottleneck": "yes"}, "config: bottleneck: True or False"),
        ({"stem": 3}, "config: stem: a str"),
    ],
)
def test_absurd_sizes_in_a_header_are_refused_before_anything_is_built(
    tmp_path, monkeypatch, config, message
):
    monkeypatch.setattr(convert, "reference_shapes", lambda *_: pytest.fail("something was built"))
    about = {"architecture": "cifar_resnet", "config": json.dumps(config), "classes": "[]"}
    about |= {"input_shape": "[32, 32, 3]", "mean": "[0.5]", "std": "[0.5]"}
    path = tmp_path / "forged.safetensors"
    save_file({"fc.bias": np.ones(2, np.float32)}, path, about)
    with pytest.raises(ValueError, match=f"path: .*forged.* {message}"):
        registry.load(path)
    about |= {"config": "{}", "input_shape": f"[{10**9}, 32, 3]"}
    save_file({"fc.bias": np.ones(2, np.float32)}, path, about)
    with pytest.raises(ValueError, match="input_shape: .* of at most"):
        registry.load(path)


@pytest.mark.parametrize("fill", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(fill):
    state = convert.from_variables(small(1).params)
    state["fc1.weight"] = np.array(state["fc1.weight"])
    state["fc1.weight"][3, 5] = fill
    with pytest.raises(ValueError, match="state: fc1.weight: finite numbers were expected"):
        architectures.build("mnist_cnn", weights=state, config=CONFIG)


def test_random_weights_follow_the_key():
    first, again, other = small(5), small(5), small(6)
    assert equal(first, again) and not equal(first, other)


def test_the_classifier_s_weights_set_the_number_of_classes():
    state = convert.from_variables(registry.load("cifar_resnet", weights="random").params)
    state["fc.weight"], state["fc.bias"] = state["fc.weight"][:7], state["fc.bias"][:7]
    assert registry.load("cifar_resnet", weights=state).apply.module.classes == 7


def test_a_checkpoint_s_own_normaliser_is_used():
    state = convert.from_variables(registry.load("cifar_resnet", weights="random").params)
    theirs = {f"module.model.{name}": value for name, value in state.items()}
    theirs |= {f"module.attacker.model.{name}": value for name, value in state.items()}
    for place in ("module.normalizer", "module.attacker.normalize"):
        theirs[f"{place}.new_mean"] = np.reshape([0.25, 0.5, 0.75], (3, 1, 1))
        theirs[f"{place}.new_std"] = np.full((3, 1, 1), 0.125)
    apply = registry.load("cifar_resnet", weights=theirs).apply
    assert (apply.mean, apply.std) == ((0.25, 0.5, 0.75), (0.125, 0.125, 0.125))


def test_auxiliary_heads_of_googlenet_are_dropped():
    googlenet = architectures.ARCHITECTURES["googlenet"].make()
    shapes = convert.reference_shapes(googlenet, (224, 224, 3))
    state = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    state["aux1.fc2.weight"] = state["aux2.conv.bn.bias"] = np.zeros(5)
    assert registry.load("googlenet", weights=state).layers[-1] == "fc"


@pytest.mark.parametrize("name", ["cifar_resnet", "mnist_cnn", "resnet18"])
def test_describe_names_the_nearest_architecture(name):
    assert registry.describe(registry.load(name, weights="random"))["architecture"] == name


def test_describe_refuses_another_s_module():
    net = nn.Sequential([lambda x: x.mean((1, 2)), nn.Dense(2)])
    model = from_linen(net)
    with pytest.raises(ValueError, match=r"^model: .*LinenApply of Sequential"):
        registry.describe(model)


BUILDS = {
    "architecture": ({"architecture": "vgg15"}, "architecture"),
    "field": ({"config": {"widht": (2, 3)}}, "config"),
    "value": ({"config": {"widths": 3}}, "config"),
    "no width": ({"config": {"widths": (0, 4)}}, "config"),
    "size": ({"input_shape": (0, 28, 1)}, "input_shape"),
    "mean": ({"mean": (0.5, 0.5)}, "mean"),
    "mean no tuple": ({"mean": 0.5}, "mean"),
    "std": ({"std": (-1.0,)}, "std"),
    "classes": ({"classes": ("a",)}, "classes"),
    "weights": ({"weights": "imagenet"}, "weights"),
}


@pytest.mark.parametrize("case", BUILDS)
def test_build_names_what_is_wrong(case):
    changes, message = BUILDS[case]
    arguments = {"architecture": "mnist_cnn", "weights": "random", **changes}
    with pytest.raises(ValueError, match=f"^{message}: "):
        architectures.build(arguments.pop("architecture"), **arguments)


# --- surplus, grey and partial weights ---------------------------------------------------------

TINY = {"stages": (1,), "widths": (4,), "stem": "imagenet"}


def tiny(**options):
    arguments = {"weights": "random", "config": {**TINY, "classes": 3}, **options}
    return architectures.build("resnet18", **arguments)


def test_surplus_weights_are_refused_or_reported():
    model = tiny()
    state = {**convert.from_variables(model.params), "ema.decay": np.ones(1)}
    with pytest.raises(ValueError, match="1 surplus: ema.decay"):
        tiny(weights=state)
    with pytest.warns(UserWarning, match="1 entries are no part of resnet18.*: ema.decay$"):
        loaded = tiny(weights=state, strict=False)
    chex.assert_trees_all_equal(loaded.params, model.params)


def test_a_grey_stem_makes_a_network_of_grey_images():
    state = convert.from_variables(tiny().params)
    grey = state["conv1.weight"].sum(1, keepdims=True)
    model = tiny(weights={**state, "conv1.weight": grey})
    assert model.input_shape == (224, 224, 1)
    np.testing.assert_allclose(model.apply.mean, [np.mean([0.485, 0.456, 0.406])])
    assert model(np.zeros((32, 32, 1), np.float32)).shape == (1, 3)
    with pytest.raises(ValueError, match=r"conv1.weight is \(\d+, 1, 7, 7\) where"):
        tiny(weights={**state, "conv1.weight": grey}, input_shape=(32, 32, 3))


@pytest.mark.parametrize("name", ["resnet18", "mnist_cnn"])
def test_a_trunk_has_the_layers_before_the_classifier(name):
    config = TINY if name == "resnet18" else None
    whole = architectures.build(name, weights="random", config=config)
    state = convert.from_variables(whole.params)
    top = architectures.ARCHITECTURES[name].head
    bare = {entry: value for entry, value in state.items() if not entry.startswith(f"{top}.")}
    for given in (state, bare):
        trunk = architectures.build(name, weights=given, config=config, partial="trunk")
        assert trunk.layers == whole.layers[:-1] and trunk.classes == ()
        images = np.full((1, *whole.input_shape), 0.5, np.float32)
        assert trunk(images).shape == (1, 0)
        last = trunk.layers[-1]
        np.testing.assert_allclose(
            taps.record(trunk, images, last)[last],
            taps.record(whole, images, last)[last],
            rtol=1e-6,
        )


def test_a_trunk_natively_without_classifier_leaves_it_out():
    config = {"stages": (1,), "widths": (4,)}
    whole = architectures.build(
        "vgg11", weights="random", config={**config, "dense": 8, "classes": 2}
    )
    state = convert.from_variables(whole.params)
    assert "classifier.0.weight" in state
    trunk = architectures.build("vgg11", weights=state, config=config, partial="trunk")
    assert trunk.layers[-1] == "pool1" and list(trunk.params["params"]) == ["features.0"]


def test_a_trunk_needs_weights():
    with pytest.raises(ValueError, match="^partial: it needs weights"):
        registry.load("resnet18", partial="trunk")


METADATA = {
    "text": {"format": "pt", "config": "not json", "classes": "]["},
    "json of another kind": {
        "config": "3",
        "input_shape": "null",
        "mean": "{}",
        "architecture": "x",
    },
    "deep": {"config": "[" * 9999},
}


@pytest.mark.parametrize("case", METADATA)
def test_metadata_of_others_is_ignored(case, tmp_path):
    model = registry.load("mnist_cnn", weights="random")
    convert.save(tmp_path / "theirs.safetensors", model, METADATA[case])
    loaded = registry.load("mnist_cnn", weights=tmp_path / "theirs.safetensors")
    chex.assert_trees_all_equal(loaded.params, model.params)


# --- apply -----------------------------------------------------------------------------------


def test_inceptionv1_sees_255_times_the_image_less_117():
    known = architectures.ARCHITECTURES["inceptionv1"]
    seen = normalised(jnp.array([0.0, 0.5, 1.0]).reshape(1, 1, 3, 1), known.mean, known.std).ravel()
    np.testing.assert_allclose(seen, [-117, 10.5, 138], rtol=1e-5)


def test_apply_normalises_inside():
    model, images = small(mean=(0.25,), std=(2.0,)), jnp.full((1, 28, 28, 1), 0.75)
    expected = jax.jit(model.apply.module.apply)(model.params, (images - 0.25) / 2)
    np.testing.assert_allclose(model(images), expected, rtol=1e-6)


def test_apply_works_under_vmap_and_jit():
    model, images = small(), jax.random.uniform(jax.random.key(0), (3, 1, 28, 28, 1))
    each = jax.jit(jax.vmap(model.apply, (None, 0)))(model.params, images)
    np.testing.assert_allclose(each[:, 0], model(images[:, 0]), rtol=1e-5, atol=1e-6)


def test_models_of_one_architecture_share_a_program():
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def forward(model, images):
        return model.apply(model.params, images)

    images = jnp.ones((1, 28, 28, 1))
    outs = [forward(small(key, name="one"), images) for key in (0, 1, 2)]
    assert not np.array_equal(outs[0], outs[1])


def test_layers_are_what_tap_is_called_with():
    expected = "conv1 relu1 pool1 conv2 relu2 pool2 fc1 relu3 fc2"
    assert small().layers == tuple(expected.split())


def test_training_returns_moved_batch_statistics():
    model = architectures.build(
        "cifar_resnet", config={"stages": (1,), "widths": (4,)}, weights="random"
    )
    _, changed = jax.jit(model.apply.train)(model.params, jnp.full((2, 8, 8, 3), 0.5))
    assert not np.array_equal(
        changed["batch_stats"]["bn1"]["mean"], model.params["batch_stats"]["bn1"]["mean"]
    )


# --- anybody's modules -----------------------------------------------------------------------


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Conv(4, (3, 3))(x))


class Net(nn.Module):
    """Nested submodules, and a choice between training and inference."""

    @nn.compact
    def __call__(self, x, train=True):
        x = Block(name="block")(x)
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(2, name="out")(x.mean((1, 2)))


class Tapped(nn.Module):
    """Names its own layers and takes a ReLU."""

    @nn.compact
    def __call__(self, x, *, tap=lambda name, x: x, relu=nn.relu):
        x = tap("hidden", relu(nn.Dense(4)(x.mean((1, 2)))))
        return nn.Dense(2)(x)


class Remat(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="out")(nn.remat(Block)(name="block")(x).mean((1, 2)))


class Map(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Conv(2, (3, 3))(x)


class Holder(nn.Module):
    table: np.ndarray

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x.mean((1, 2)))


IMAGES = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3))


def init(module):
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    return jax.jit(module.init)(keys, IMAGES)


def from_linen(module, **keywords) -> Model:
    return adapters.from_linen(module, init(module), input_shape=(8, 8, 3), **keywords)


def test_linen_layers_are_the_submodules_paths():
    assert from_linen(Net()).layers == ("block.Conv_0", "block", "norm", "Dropout_0", "out")


def test_linen_module_runs_in_inference_mode():
    net = Net()
    expected = jax.jit(functools.partial(net.apply, train=False))(init(net), IMAGES)
    np.testing.assert_allclose(from_linen(net)(IMAGES), expected, rtol=1e-6)


def test_linen_activations_can_be_recorded():
    model = from_linen(Net())
    found = taps.record(model, IMAGES, "block")["block"]
    expected = jax.jit(Block().apply)({"params": model.params["params"]["block"]}, IMAGES)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_linen_activations_can_be_replaced():
    model = from_linen(Net())
    tap = taps.replacing({"norm": jnp.zeros(())})
    expected = jnp.broadcast_to(model.params["params"]["out"]["bias"], (2, 2))
    np.testing.assert_array_equal(model.apply(model.params, IMAGES, tap=tap), expected)


def test_linen_module_s_own_tap_names_its_layers():
    assert from_linen(Tapped()).layers == ("hidden",)


def test_linen_module_s_own_relu_takes_a_rule():
    model = from_linen(Tapped())
    grad = jax.grad(lambda x, relu: model.apply(model.params, x, relu=relu).sum())
    grad = jax.jit(grad, static_argnums=1)
    plain, guided = grad(IMAGES, jax.nn.relu), grad(IMAGES, taps.guided_relu)
    assert model.apply.takes_relu and not np.array_equal(plain, guided)


def test_linen_layers_inside_a_lifted_transformation_are_left_out():
    model = from_linen(Remat())
    assert model.layers == ("out",) and model(IMAGES).shape == (2, 2)


def test_linen_lists_are_taken_as_tuples():
    net = nn.Sequential([nn.Conv(4, (3, 3)), nn.relu, lambda x: x.mean((1, 2)), nn.Dense(2)])
    model = from_linen(net)
    expected = net.apply(init(net), IMAGES)
    assert model.layers == ("layers_0", "layers_3")
    np.testing.assert_allclose(model(IMAGES), expected, rtol=1e-6)


def test_linen_weights_become_float32():
    halves = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), init(Net()))
    model = adapters.from_linen(Net(), halves, input_shape=(8, 8, 3))
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype("float32")}


def test_linen_models_of_one_architecture_share_a_program():
    assert hash(from_linen(Net()).apply) == hash(from_linen(Net()).apply)
    assert from_linen(Net()).apply == from_linen(Net()).apply


LINEN = {
    "maps for logits": (
        Map(),
        {"kind": "logits"},
        r"^module: logits \(n, classes\).*\(1, 8, 8, 2\)",
    ),
    "unhashable": (Holder(np.ones(2)), {}, r"^module: its fields must be hashable"),
    "mean": (Tapped(), {"mean": (1.0, 2.0)}, r"^mean: "),
    "std": (Tapped(), {"std": (0.0,)}, r"^std: "),
    "classes": (Tapped(), {"classes": ("a",)}, r"^classes: 2 names"),
}


@pytest.mark.parametrize("case", LINEN)
def test_linen_module_that_cannot_serve_is_refused(case):
    module, keywords, message = LINEN[case]
    with pytest.raises(ValueError, match=message):
        from_linen(module, **keywords)


class Leaning(nn.Module):
    """Calls a function that hashing it does not see."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(pooled(x))


def pooled(x):
    return x.mean((1, 2))


def test_a_module_that_was_mended_is_taken(monkeypatch):
    variables = init(Leaning())
    with monkeypatch.context() as broken:
        broken.setitem(globals(), "pooled", lambda x: x.mean((1, 2)) + jnp.ones(5))
        with pytest.raises(ValueError, match=r"^module: with these weights"):
            adapters.from_linen(Leaning(), variables, input_shape=(8, 8, 3))
    assert adapters.from_linen(Leaning(), variables, input_shape=(8, 8, 3)).layers == ("Dense_0",)


class Paired(nn.Module):
    @nn.compact
    def __call__(self, x, *, tap=lambda name, x: x):
        tap("pair", (x, x))
        return nn.Dense(2)(x.mean((1, 2)))


def test_a_layer_that_is_no_array_is_named():
    with pytest.raises(ValueError, match=r"^module: .*layer 'pair': an array"):
        from_linen(Paired())


def test_linen_weights_of_another_module_are_refused():
    with pytest.raises(ValueError, match=r"^module: with these weights"):
        adapters.from_linen(Net(), init(Tapped()), input_shape=(8, 8, 3))


TYPES = {
    "linen module": (adapters.from_linen, (3, {"params": {}}), "module"),
    "linen variables": (adapters.from_linen, (Tapped(), {"kernel": 1}), "variables"),
    "nnx module": (adapters.from_nnx, (Tapped(),), "module"),
}


@pytest.mark.parametrize("case", TYPES)
def test_what_is_no_module_is_named(case):
    function, arguments, message = TYPES[case]
    with pytest.raises(TypeError, match=f"^{message}: "):
        function(*arguments, input_shape=(8, 8, 3))


class NnxNet(nnx.Module):
    def __init__(self, seed=0):
        rngs = nnx.Rngs(seed)
        self.blocks = nnx.List([nnx.Conv(3, 4, (3, 3), rngs=rngs)])
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        for block in self.blocks:
            x = nnx.relu(block(x))
        return self.out(self.drop(self.norm(x)).mean((1, 2)))


class NnxTapped(nnx.Module):
    def __init__(self):
        self.out = nnx.Linear(3, 2, rngs=nnx.Rngs(0))

    def __call__(self, x, *, tap, relu):
        return self.out(tap("hidden", relu(x.mean((1, 2)))))


def from_nnx(module):
    return adapters.from_nnx(module, input_shape=(8, 8, 3))


def test_nnx_layers_are_the_submodules_paths():
    assert from_nnx(NnxNet()).layers == ("blocks.0", "norm", "drop", "out")


def test_nnx_module_runs_in_evaluation_mode():
    net = NnxNet()
    model = from_nnx(net)
    net.eval()
    np.testing.assert_allclose(model(IMAGES), net(IMAGES), rtol=1e-6)


def test_nnx_module_is_left_as_it_is():
    net = NnxNet()
    from_nnx(net)(IMAGES)
    assert not net.drop.deterministic and type(net.norm) is nnx.BatchNorm


def test_nnx_activations_can_be_recorded():
    net = NnxNet()
    found = taps.record(from_nnx(net), IMAGES, "blocks.0")["blocks.0"]
    np.testing.assert_allclose(found, net.blocks[0](IMAGES), rtol=1e-5, atol=1e-6)


def test_nnx_activations_can_be_replaced():
    net = NnxNet()
    model, tap = from_nnx(net), taps.replacing({"drop": jnp.zeros(())})
    expected = jnp.broadcast_to(net.out.bias[...], (2, 2))
    np.testing.assert_array_equal(model.apply(model.params, IMAGES, tap=tap), expected)


def test_nnx_module_s_own_tap_and_relu_are_used():
    model = from_nnx(NnxTapped())
    assert model.layers == ("hidden",) and model.apply.takes_relu


def test_nnx_models_of_one_architecture_share_a_program():
    one, two = from_nnx(NnxNet(0)), from_nnx(NnxNet(1))
    assert jax.tree.structure(one) == jax.tree.structure(two)
    assert hash(one.apply) == hash(two.apply)


def test_a_deep_model_traces_its_layers_once():
    calls = []

    class Counted(ResNet):
        @functools.wraps(ResNet.__call__)
        def __call__(self, *arguments, **keywords):
            calls.append(1)
            return super().__call__(*arguments, **keywords)

    module = Counted(stages=(1,), widths=(4,), stem="cifar", classes=2)
    variables = convert.he_normal(module, (8, 8, 3), jax.random.key(0))
    calls.clear()
    for _ in range(3):
        adapters.from_linen(module, variables, input_shape=(8, 8, 3))
    assert len(calls) == 1
