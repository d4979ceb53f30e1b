"""Weights: layouts worked out by hand, files of every kind and every damage, foreign names."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import struct

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save, save_file

from rvis.models import registry
from rvis.models.apply import LinenApply
from rvis.models.families.mnist import MnistCNN
from rvis.models.families.resnet import ResNet
from rvis.models.weights import convert

SMALL = MnistCNN(widths=(2, 3), dense=4)
SHAPE = (28, 28, 1)
RESNET = ResNet(stages=(1, 1), widths=(4, 6), bottleneck=True, stem="cifar", classes=3)


def numbers(shapes, seed=0):
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def small_state():
    return numbers(convert.reference_shapes(SMALL, SHAPE))


def same(left, right):
    return left.keys() == right.keys() and all(np.array_equal(left[k], right[k]) for k in left)


# --- layouts ---------------------------------------------------------------------------------

LAYOUTS = {
    "convolution": ("kernel", (2, 3, 5, 7), "weight", (7, 5, 2, 3)),
    "convolution over time": ("kernel", (3, 5, 7), "weight", (7, 5, 3)),
    "dense": ("kernel", (5, 7), "weight", (7, 5)),
    "bias": ("bias", (7,), "bias", (7,)),
    "scale": ("scale", (7,), "weight", (7,)),
    "mean": ("mean", (7,), "running_mean", (7,)),
    "variance": ("var", (7,), "running_var", (7,)),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_flax_leaf_becomes_the_reference_s(case):
    leaf, shape, entry, expected = LAYOUTS[case]
    variables = {"params": {"block": {"conv.0": {leaf: np.zeros(shape, np.float32)}}}}
    state = convert.from_variables(variables)
    assert {name: value.shape for name, value in state.items()} == {
        f"block.conv.0.{entry}": expected
    }


def test_convolution_s_numbers_go_where_they_belong():
    kernel = np.arange(2 * 3 * 5 * 7, dtype=np.float32).reshape(2, 3, 5, 7)
    weight = convert.from_variables({"params": {"c": {"kernel": kernel}}})["c.weight"]
    assert weight[6, 4, 1, 2] == kernel[1, 2, 4, 6]


def test_reference_arrays_are_contiguous():
    kernel = np.zeros((3, 3, 2, 4), np.float32)
    state = convert.from_variables({"params": {"c": {"kernel": kernel}}})
    assert state["c.weight"].flags.c_contiguous


@pytest.mark.parametrize(("module", "shape"), [(SMALL, SHAPE), (RESNET, (8, 8, 3))])
def test_state_dict_survives_the_round_trip_bit_for_bit(module, shape):
    state = numbers(convert.reference_shapes(module, shape))
    assert same(convert.from_variables(convert.to_variables(module, state, shape)), state)


def test_variables_survive_the_round_trip_bit_for_bit():
    variables = convert.he_normal(RESNET, (8, 8, 3), jax.random.key(3))
    back = convert.to_variables(RESNET, convert.from_variables(variables), (8, 8, 3))
    jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_variables_are_float32_jax_arrays():
    state = {name: value.astype(np.float64) for name, value in small_state().items()}
    leaves = jax.tree.leaves(convert.to_variables(SMALL, state, SHAPE))
    assert all(isinstance(leaf, jax.Array) and leaf.dtype == np.float32 for leaf in leaves)


def test_variables_do_not_share_memory_with_the_state():
    state = small_state()
    variables = convert.to_variables(SMALL, state, SHAPE)
    before = np.array(variables["params"]["fc1"]["bias"])
    state["fc1.bias"][:] = 9
    np.testing.assert_array_equal(variables["params"]["fc1"]["bias"], before)


def test_two_variables_of_one_name_are_refused():
    variables = {"params": {"a": {"kernel": np.ones((1, 1)), "scale": np.ones(1)}}}
    with pytest.raises(ValueError, match=r"called 'a\.weight'"):
        convert.from_variables(variables)


MISFITS = {
    "missing": (lambda s: s.pop("fc2.bias"), r"1 missing: fc2\.bias \(10,\)"),
    "surplus": (lambda s: s.update(extra=np.ones((2, 3))), r"1 surplus: extra \(2, 3\)"),
    "misshapen": (
        lambda s: s.update({"fc2.bias": np.ones(11)}),
        r"1 misshapen: fc2\.bias is \(11,\) where \(10,\) was expected",
    ),
    "not numbers": (lambda s: s.update({"fc2.bias": np.array(["a"] * 10)}), r"'fc2\.bias'"),
    "complex": (lambda s: s.update({"fc2.bias": np.ones(10, complex)}), r"'fc2\.bias'.*complex"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_weights_that_do_not_fit_are_named(case):
    change, message = MISFITS[case]
    state = small_state()
    change(state)
    with pytest.raises(ValueError, match=message):
        convert.to_variables(SMALL, state, SHAPE)


def test_missing_surplus_and_misshapen_are_told_in_one_error():
    state = small_state()
    state["fc3.bias"] = state.pop("fc2.bias")
    state["fc1.bias"] = np.ones(5)
    with pytest.raises(ValueError, match=r"(?s)missing: fc2.*surplus: fc3.*misshapen: fc1"):
        convert.to_variables(SMALL, state, SHAPE)


def test_twenty_misfits_of_a_kind_are_listed():
    state = small_state() | {f"extra{i:02}": np.ones(1) for i in range(23)}
    with pytest.raises(ValueError, match="23 surplus") as caught:
        convert.to_variables(SMALL, state, SHAPE)
    assert str(caught.value).count("extra") == 20


# --- random weights --------------------------------------------------------------------------


def test_random_kernels_have_he_s_deviation():
    wide = MnistCNN(widths=(32, 64), dense=256)
    kernel = convert.he_normal(wide, SHAPE, jax.random.key(0))["params"]["fc1"]["kernel"]
    np.testing.assert_allclose(float(kernel.std()), (2 / (64 * 7 * 7)) ** 0.5, rtol=0.01)


def test_random_statistics_are_neutral():
    bn = convert.he_normal(RESNET, (8, 8, 3), jax.random.key(0))
    found = {**bn["params"]["bn1"], **bn["batch_stats"]["bn1"]}
    assert {k: set(np.unique(v)) for k, v in found.items()} == {
        "scale": {1.0},
        "bias": {0.0},
        "mean": {0.0},
        "var": {1.0},
    }


@pytest.mark.parametrize(("other", "equal"), [(5, True), (6, False)])
def test_random_weights_follow_the_key(other, equal):
    one, two = (convert.he_normal(SMALL, SHAPE, jax.random.key(k)) for k in (5, other))
    kernels = (v["params"]["fc1"]["kernel"] for v in (one, two))
    assert np.array_equal(*kernels) is equal


# --- names -----------------------------------------------------------------------------------

EXPECTED = {"conv1.weight": (2, 1, 3, 3), "fc.bias": (2,)}
WEIGHT, BIAS = np.ones((2, 1, 3, 3)), np.ones(2)
NAMES = {
    "plain": ("", ""),
    "DataParallel": ("module.", "module."),
    "compiled": ("_orig_mod.", "_orig_mod."),
    "both": ("_orig_mod.module.", "_orig_mod.module."),
    "lightning": ("model.", "model."),
    "robustness": ("module.model.", "module.model."),
    "attacker": ("attacker.model.", "attacker.model."),
    "backbone with a head beside it": ("backbone.", ""),
    "any name": ("net.", "net."),
    "a known one in any": ("student.module.", "student.module."),
    "two of any": ("encoder.body.", "encoder.body."),
    "second of a Sequential": ("1.", "1."),
}


@pytest.mark.parametrize("case", NAMES)
def test_prefixes_are_taken_off(case):
    first, second = NAMES[case]
    state = {f"{first}conv1.weight": WEIGHT, f"{second}fc.bias": BIAS}
    assert convert.normalise_names(state, EXPECTED).keys() == EXPECTED.keys()


IGNORED = (
    "bn1.num_batches_tracked",
    "module.bn1.num_batches_tracked",
    "module.normalizer.new_mean",
    "module.attacker.normalize.new_std",
    "aux1.fc1.weight",
    "module.aux2.conv.bn.bias",
)


@pytest.mark.parametrize("name", IGNORED)
def test_what_training_leaves_behind_is_dropped(name):
    assert convert.normalise_names({name: np.ones(3), "fc.bias": BIAS}, EXPECTED).keys() == {
        "fc.bias"
    }


def test_an_unknown_entry_is_kept_to_be_refused():
    state = {"module.fc.bias": BIAS, "module.extra": BIAS}
    assert convert.normalise_names(state, EXPECTED).keys() == {"fc.bias", "extra"}


def test_an_expected_name_keeps_what_looks_like_a_prefix():
    expected = {"model.fc.bias": (2,)}
    assert convert.normalise_names({"model.fc.bias": BIAS}, expected).keys() == expected.keys()


def test_of_two_copies_the_outer_one_is_taken():
    state = {"module.attacker.model.fc.bias": 0 * BIAS, "module.model.fc.bias": BIAS}
    np.testing.assert_array_equal(convert.normalise_names(state, EXPECTED)["fc.bias"], BIAS)


def test_of_two_copies_the_whole_one_is_taken():
    state = {
        "model.fc.bias": 0 * BIAS,
        "module.model.fc.bias": BIAS,
        "module.model.conv1.weight": WEIGHT,
    }
    np.testing.assert_array_equal(convert.normalise_names(state, EXPECTED)["fc.bias"], BIAS)


def test_a_robustness_checkpoint_s_normaliser_is_found():
    mean, std = np.reshape([0.25, 0.5, 0.75], (3, 1, 1)), np.full((3, 1, 1), 0.125)
    state = {"module.normalizer.new_mean": mean, "module.normalizer.new_std": std}
    assert convert.normaliser(state) == ((0.25, 0.5, 0.75), (0.125, 0.125, 0.125))


@pytest.mark.parametrize("before", ["0.", "", "norm.", "pre.normalize."])
def test_the_normaliser_of_a_sequential_is_found(before):
    mean, std = np.full((1, 3, 1, 1), 0.5), np.asarray(0.25)
    state = {
        f"{before}mean": mean,
        f"{before}std": std,
        "1.fc.bias": BIAS,
        "1.conv1.weight": WEIGHT,
    }
    assert convert.normaliser(state) == ((0.5, 0.5, 0.5), (0.25,))
    assert convert.normalise_names(state, EXPECTED).keys() == EXPECTED.keys()


def test_what_is_no_normaliser_is_kept_to_be_refused():
    state = {"mean": np.ones(7), "std": np.ones(7), "head.mean": np.ones(1), "fc.bias": BIAS}
    assert convert.normaliser(state) is None
    assert convert.normalise_names(state, EXPECTED).keys() == state.keys()


def test_a_block_does_not_stand_for_what_is_missing():
    """`layer1.conv1` ends like the stem."""
    state = {"layer1.conv1.weight": WEIGHT, "fc.bias": BIAS, "bn.bias": BIAS}
    expected = {**EXPECTED, "bn.bias": (2,)}
    assert "conv1.weight" not in convert.normalise_names(state, expected)


def test_half_a_normaliser_is_none():
    assert convert.normaliser({"module.normalizer.new_mean": np.ones(3)}) is None


def test_cifar_names_become_torchvision_s():
    shapes = convert.reference_shapes(RESNET, (8, 8, 3))
    theirs = {
        name.replace("downsample", "shortcut").replace("fc.", "linear."): value
        for name, value in numbers(shapes).items()
    }
    assert not theirs.keys() <= shapes.keys()
    assert convert.normalise_names(theirs, shapes).keys() == shapes.keys()


TIMM = {
    "pre_logits.fc1.weight": ((5, 2, 7, 7), "classifier.0.weight", (5, 98)),
    "pre_logits.fc2.weight": ((5, 5, 1, 1), "classifier.3.weight", (5, 5)),
    "head.fc.weight": ((3, 5), "classifier.6.weight", (3, 5)),
    "head.fc.bias": ((3,), "classifier.6.bias", (3,)),
}


@pytest.mark.parametrize("name", TIMM)
def test_timm_s_vgg_becomes_torchvision_s(name):
    shape, renamed, expected = TIMM[name]
    value = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    fitted = convert.normalise_names({name: value}, {renamed: expected})
    np.testing.assert_array_equal(fitted[renamed], value.reshape(expected))


def test_arguments_are_left_as_they_are():
    state = {"module.fc.bias": BIAS}
    convert.normalise_names(state, EXPECTED)
    assert list(state) == ["module.fc.bias"]


# --- safetensors -----------------------------------------------------------------------------

HALVES = np.array([0.5, -2.0, 1024.0])


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2"])
def test_float8_is_refused_by_its_name(kind, tmp_path):
    entry = {"dtype": kind, "shape": [2], "data_offsets": [0, 2]}
    header = json.dumps({"fc.bias": entry}).encode()
    path = tmp_path / "eighth.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(2))
    with pytest.raises(ValueError, match=f"^path: .*'fc.bias' as float8 .{kind}"):
        convert.read_state_dict(path)


def raw(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int64", "uint8"])
def test_every_number_format_becomes_float32(dtype, tmp_path):
    values = HALVES.astype(jnp.bfloat16) if dtype == "bfloat16" else HALVES
    values = (np.array([0, 2, 200]) if "int" in dtype else values).astype(dtype)
    save_file({"a": values}, tmp_path / "a.safetensors")
    array = convert.read_state_dict(tmp_path / "a.safetensors")[0]["a"]
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, values.astype(np.float64))


def test_metadata_comes_with_the_weights(tmp_path):
    save_file({"a": BIAS}, tmp_path / "a.safetensors", {"architecture": "vgg16"})
    assert convert.read_state_dict(tmp_path / "a.safetensors")[1] == {"architecture": "vgg16"}


WHOLE = save({"a": np.ones((3, 4), np.float32)})
FLOATS = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DAMAGED = {
    "empty": b"",
    "text": b"these are no weights, but a line of text",
    "cut in the header": WHOLE[:20],
    "cut in the data": WHOLE[:-5],
    "more than it says": WHOLE + b"more",
    "length beyond the file": raw({}, length=10**6),
    "length beyond reason": raw({}, length=2**63),
    "header too long": raw(b"{" + b" " * (101 * 2**20) + b"}"),
    "header no JSON": raw(b"{{{"),
    "offsets outside": raw({"a": {**FLOATS, "data_offsets": [100, 108]}}, b"\0" * 8),
    "offsets backwards": raw({"a": {**FLOATS, "data_offsets": [8, 0]}}, b"\0" * 8),
    "overlapping": raw({"a": FLOATS, "b": FLOATS}, b"\0" * 8),
    "shape against size": raw({"a": {**FLOATS, "shape": [3]}}, b"\0" * 8),
    "shape that overflows": raw({"a": {**FLOATS, "shape": [2**40, 2**40]}}, b"\0" * 8),
    "shape below zero": raw({"a": {**FLOATS, "shape": [-2]}}, b"\0" * 8),
    "unknown number format": raw({"a": {**FLOATS, "dtype": "F33"}}, b"\0" * 8),
    "number format that NumPy has not": raw(
        {"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}, b"\0" * 8
    ),
    "complex": raw({"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, b"\0" * 8),
    "pickle": b"\x80\x04\x95\x1a\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_safetensors_are_refused_by_name(case, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(DAMAGED[case])
    with pytest.raises(ValueError, match=r"weights\.safetensors"):
        convert.read_state_dict(path)


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_bytes_are_refused_by_origin(case):
    with pytest.raises(ValueError, match="the shelf"):
        convert.parse_safetensors(DAMAGED[case], "the shelf")


PATHS = {
    "missing": ("nowhere.safetensors", "there is none"),
    "folder": ("folder.safetensors", "a folder is there"),
    "another kind": ("notes.txt", r"\.safetensors, \.pth, \.pt or \.bin"),
}


@pytest.mark.parametrize("case", PATHS)
def test_paths_that_hold_no_weights_are_named(case, tmp_path):
    name, message = PATHS[case]
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(ValueError, match=message) as caught:
        convert.read_state_dict(tmp_path / name)
    assert name in str(caught.value)


def test_a_path_that_is_none_is_named():
    with pytest.raises(TypeError, match="path"):
        convert.read_state_dict(3)


# --- saving ----------------------------------------------------------------------------------


def test_saved_weights_come_back_bit_for_bit(tmp_path):
    state = small_state()
    convert.save(tmp_path / "a.safetensors", convert.to_variables(SMALL, state, SHAPE), {})
    assert same(convert.read_state_dict(tmp_path / "a.safetensors")[0], state)


def test_metadata_is_strings_and_json(tmp_path):
    variables = {"params": {"a": {"bias": BIAS}}}
    convert.save(tmp_path / "a.safetensors", variables, {"architecture": "x", "mean": (0.5, 1)})
    _, metadata = convert.read_state_dict(tmp_path / "a.safetensors")
    assert metadata == {"architecture": "x", "mean": "[0.5, 1]"}


UNSAVABLE = {
    "suffix": ("a.npz", {"params": {}}, {}, "path"),
    "no variables": ("a.safetensors", {"kernel": BIAS}, {}, "model_or_variables"),
    "no mapping": ("a.safetensors", 3, {}, "model_or_variables"),
    "metadata": ("a.safetensors", {"params": {}}, {"x": object()}, "metadata"),
}


@pytest.mark.parametrize("case", UNSAVABLE)
def test_what_cannot_be_saved_is_named_and_leaves_nothing(case, tmp_path):
    name, variables, metadata, message = UNSAVABLE[case]
    with pytest.raises(ValueError, match=f"^{message}: "):
        convert.save(tmp_path / name, variables, metadata)
    assert list(tmp_path.iterdir()) == []


def test_a_module_of_anybody_s_converts_too():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2, name="out")(x.mean((1, 2)))

    assert convert.reference_shapes(Net(), (4, 4, 3)) == {"out.weight": (2, 3), "out.bias": (2,)}


# --- the script ------------------------------------------------------------------------------


@pytest.fixture
def script():
    path = pathlib.Path(__file__).parents[2] / "scripts" / "convert.py"
    spec = importlib.util.spec_from_file_location("convert_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_script_writes_what_load_reads(script, tmp_path, capsys):
    state = {f"module.{name}": value for name, value in small_state().items()}
    save_file(state, tmp_path / "in.safetensors")
    (tmp_path / "names.txt").write_text("\n".join("abcdefghij"))
    out = tmp_path / "out.safetensors"
    arguments = ["mnist_cnn", str(tmp_path / "in.safetensors"), str(out)]
    arguments += ["--config", '{"widths": [2, 3], "dense": 4}', "--mean", "0.5", "--std", "2"]
    assert script([*arguments, "--classes", str(tmp_path / "names.txt")]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: mnist_cnn, 847 weights, 10 classes, ")
    model = registry.load(out)
    assert model.apply == LinenApply(SMALL, (0.5,), (2.0,))
    assert model.classes == tuple("abcdefghij")


def test_script_tells_an_error_in_one_line(script, tmp_path, capsys):
    save_file({"a": BIAS}, tmp_path / "in.safetensors")
    arguments = ["mnist_cnn", str(tmp_path / "in.safetensors"), str(tmp_path / "out.safetensors")]
    assert script(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "surplus: a (2,)" in error


def test_script_names_a_bad_config(script, capsys):
    with pytest.raises(SystemExit, match="2"):
        script(["mnist_cnn", "in.safetensors", "out.safetensors", "--config", "{"])
    assert "--config" in capsys.readouterr().err
