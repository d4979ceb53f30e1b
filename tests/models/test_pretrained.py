"""Public weights: fetched once and whole from a server on this machine, checked, refused by name."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import pathlib
import re
import socket
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from safetensors.numpy import save

from rvis import files
from rvis.models import architectures, registry
from rvis.models.families.mnist import MnistCNN
from rvis.models.families.vgg import VGG
from rvis.models.weights import convert, pretrained

DATA = save({"bias": np.random.default_rng(0).normal(size=50_000).astype(np.float32)})
SHA256 = hashlib.sha256(DATA).hexdigest()
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Shop:
    """What the server has and does, and what was asked of it."""

    data = DATA
    cut: int | None = None
    status = 200
    headers: dict[str, str | None] = {}
    redirect: str | None = None

    def __init__(self):
        self.asked: list[str] = []
        self.ranges: set[str | None] = set()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        shop = self.server.shop
        shop.asked.append(self.path)
        shop.ranges.add(self.headers.get("Range"))
        if shop.redirect and self.path != "/there":
            self.send_response(302)
            self.send_header("Location", shop.redirect)
            self.send_header("X-Linked-Etag", f'"{SHA256}"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if shop.status != 200:
            self.send_error(shop.status)
            return
        self.send_response(200)
        for name, value in {"Content-Length": str(len(shop.data)), **shop.headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(shop.data[: shop.cut])

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def shop(server, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    server.shop = Shop()
    return server.shop


@pytest.fixture
def url(server, shop):
    return f"http://127.0.0.1:{server.server_port}/model.safetensors"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "model.safetensors"


def left(path):
    """The names in the cache."""
    return sorted(file.name for file in path.parent.iterdir())


# --- fetching ----------------------------------------------------------------------------------


def test_what_the_server_has_is_what_the_cache_has(shop, url, path):
    assert pretrained.fetch(url, path, sha256=SHA256) == path
    assert path.read_bytes() == DATA and left(path) == [path.name]


def test_the_second_call_asks_nobody(shop, url, path):
    for _ in range(2):
        pretrained.fetch(url, path, sha256=SHA256)
    assert len(shop.asked) == 1


def test_calls_at_once_all_get_a_whole_file(shop, url, path):
    def get():
        pretrained.fetch(url, path)
        whole.append(path.read_bytes() == DATA)

    whole: list[bool] = []
    threads = [threading.Thread(target=get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert whole == [True] * 4 and left(path) == [path.name]


def test_no_length_told_is_no_harm(shop, url, path):
    shop.headers = {"Content-Length": None}
    assert pretrained.fetch(url, path).read_bytes() == DATA


def test_a_cut_connection_leaves_nothing(shop, url, path):
    shop.cut = 70_000
    with pytest.raises(ConnectionError, match=rf"^url: {url} could not be had: .*weights=PATH"):
        pretrained.fetch(url, path)
    assert left(path) == []
    shop.cut = None
    assert pretrained.fetch(url, path).read_bytes() == DATA
    assert shop.ranges == {None}, "half a file may be another one's half"


def test_processes_at_once_all_get_a_whole_file(shop, url, path):
    code = "import sys; from rvis.models.weights import pretrained as p; p.fetch(*sys.argv[1:])"
    command = [sys.executable, "-c", code, url, str(path)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [each.communicate()[1] for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    assert path.read_bytes() == DATA and left(path) == [path.name]


def test_a_cache_that_is_read_only_serves_what_it_has(shop, url, path, sealed):
    with sealed(path.name, DATA) as folder:
        assert pretrained.fetch(url, folder / path.name, sha256=SHA256).read_bytes() == DATA
        assert shop.asked == []
        with pytest.raises(PermissionError, match="path: .* could not be written: .*RVIS_CACHE"):
            pretrained.fetch(url, folder / "other.safetensors")


# --- checks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("digits", [8, 64])
def test_a_wrong_checksum_is_refused_and_the_file_removed(digits, shop, url, path):
    wrong = "0123abcd" * 8
    with pytest.raises(
        ValueError, match=rf"^url: {url} gave another file .*{SHA256}, {wrong[:digits]} was"
    ):
        pretrained.fetch(url, path, sha256=wrong[:digits])
    assert left(path) == []


def test_eight_digits_of_a_checksum_are_enough(shop, url, path):
    assert pretrained.fetch(url, path, sha256=SHA256[:8]) == path


@pytest.mark.parametrize("sha256", [SHA256, SHA256[:8], ""])
@pytest.mark.parametrize("content", [b"", DATA[:-1], b"<html>Please log in"])
def test_a_damaged_file_in_the_cache_is_fetched_anew(content, sha256, shop, url, path):
    path.parent.mkdir()
    path.write_bytes(content)
    assert pretrained.fetch(url, path, sha256=sha256).read_bytes() == DATA


def test_another_file_in_the_cache_is_never_used(shop, url, path):
    path.parent.mkdir()
    path.write_bytes(save({"bias": np.ones(4, np.float32)}))
    shop.status = 503
    with pytest.raises(ConnectionError, match="it answers 503"):
        pretrained.fetch(url, path, sha256=SHA256)
    assert left(path) == []


def test_the_checksum_that_a_redirect_tells_is_checked(shop, url, path):
    shop.redirect = "/there"
    assert pretrained.fetch(url, path).read_bytes() == DATA
    path.unlink()
    shop.data = save({"bias": np.ones(4, np.float32)})
    with pytest.raises(ValueError, match=f"{SHA256} was expected"):
        pretrained.fetch(url, path)
    assert left(path) == []


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
@pytest.mark.parametrize("data", [b"", b"<html>Please log in", DATA[:-1]])
def test_what_is_no_file_of_weights_is_not_kept(shop, url, path, name, data):
    shop.data = data
    with pytest.raises(ValueError, match=r"gave no (whole safetensors|PyTorch) file"):
        pretrained.fetch(url, path.with_name(name))
    assert left(path) == []


@pytest.mark.parametrize("length", ["99999999999999999", "-5", "many", "10"])
def test_a_wrong_length_leaves_no_file_that_is_not_whole(shop, url, path, length):
    shop.headers = {"Content-Length": length}
    with contextlib.suppress(ConnectionError, ValueError):
        assert pretrained.fetch(url, path).read_bytes() == DATA
    assert left(path) in ([], [path.name])


# --- refusals ----------------------------------------------------------------------------------


def test_404_names_the_address_and_what_to_do(shop, url, path):
    shop.status = 404
    with pytest.raises(
        ConnectionError, match=rf"{url} could not be had: it answers 404 .*weights="
    ):
        pretrained.fetch(url, path)


def test_offline_names_the_address_and_what_to_do(shop, path):
    with socket.socket() as taken:  # bound and not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/model.safetensors"
        with pytest.raises(
            ConnectionError, match=rf"{url} could not be had: .*refused.*weights=PATH"
        ):
            pretrained.fetch(url, path)


def test_without_pooch_the_extra_is_named(shop, url, path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r'needs pooch: pip install "rvis\[download\]"'):
        pretrained.fetch(url, path)
    path.parent.mkdir()
    path.write_bytes(DATA)
    assert pretrained.fetch(url, path, sha256=SHA256) == path


def test_a_disk_that_fills_up_is_named(shop, url, path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, hard))
    try:
        with pytest.raises(
            OSError, match=r"^.Errno 27. path: .*safetensors could not be written: .*RVIS_CACHE"
        ):
            pretrained.fetch(url, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left(path) == []
    assert pretrained.fetch(url, path).read_bytes() == DATA


def test_a_folder_that_is_a_file_is_named(shop, url, tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(OSError, match=r"path: .*model.safetensors could not be written"):
        pretrained.fetch(url, tmp_path / "cache" / "model.safetensors")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/x", "model.safetensors"])
def test_other_addresses_are_refused(url, path):
    with pytest.raises(ValueError, match="^url: an address that begins with https://"):
        pretrained.fetch(url, path)


@pytest.mark.parametrize("further", ["file:///etc/passwd", "ftp://example.org/x"])
def test_a_redirect_to_another_scheme_is_refused(further, shop, url, path):
    shop.redirect = further
    with pytest.raises(ConnectionError, match="could not be had"):
        pretrained.fetch(url, path)
    assert left(path) == []


def test_https_does_not_lead_to_http(shop, url, path, monkeypatch):
    # The server here has no certificate: what it answers is shown to the check as if by https.
    answered = pretrained._Download.answered

    def secure(self, answer, *_, **__):
        answer.url = answer.url.replace("http://", "https://")
        answered(self, answer)

    monkeypatch.setattr(pretrained._Download, "answered", secure)
    shop.redirect = url.replace("model.safetensors", "there")
    with pytest.raises(ConnectionError, match=r"leads to http://.*, which is not https"):
        pretrained.fetch(url, path)
    assert len(shop.asked) == 1


# --- the table and load ------------------------------------------------------------------------


@pytest.fixture
def table(url, tmp_path, monkeypatch):
    """A table whose one network is small, on the server here, and a cache of the test's own."""
    module = MnistCNN(widths=(2, 3), dense=4)
    state = convert.from_variables(convert.he_normal(module, (28, 28, 1), jax.random.key(0)))
    known = architectures.ARCHITECTURES["mnist_cnn"]._replace(make=lambda **kw: module.clone(**kw))
    monkeypatch.setattr(
        architectures, "ARCHITECTURES", {**architectures.ARCHITECTURES, "tiny": known}
    )
    monkeypatch.setenv("RVIS_CACHE", str(tmp_path / "own"))
    data = save(state)
    published = pretrained.Published(url, "tiny.safetensors", hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(pretrained, "PUBLISHED", {**pretrained.PUBLISHED, "tiny": published})
    return data


def test_load_fetches_into_the_cache(table, shop, tmp_path):
    shop.data = table
    models = [registry.load("tiny", pretrained=True) for _ in range(2)]
    assert (tmp_path / "own" / "tiny.safetensors").read_bytes() == table
    assert len(shop.asked) == 1
    assert models[0].name == "tiny" and models[0].params["params"]["conv1"]["kernel"].shape[-1] == 2


def test_what_is_fetched_can_be_a_trunk(table, shop):
    shop.data = table
    model = registry.load("tiny", pretrained="trunk")
    assert model(np.zeros((1, 28, 28, 1), np.float32)).shape == (1, 0)
    assert "conv2" in model.params["params"] and "dense1" not in model.params["params"]


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"RVIS_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/rvis"),
        ({"HOME": "/c"}, "/c/.cache/rvis"),
        ({"HOME": "/c", "RVIS_CACHE": "~/d"}, "/c/d"),
    ],
)
def test_the_cache_follows_the_environment(environment, folder, monkeypatch):
    for name in ("RVIS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert files.cache() == pathlib.Path(folder)


REFUSED = {
    "weights too": (("resnet50",), {"weights": "random"}, ValueError, "^weights, pretrained: one"),
    "shipped": (("cifar10_resnet",), {}, ValueError, "^pretrained: 'cifar10_resnet' is shipped"),
    "no public file": (
        ("cifar_resnet",),
        {},
        ValueError,
        "^pretrained: no public weights .*alexnet",
    ),
    "misspelt": (("resnet5",), {}, ValueError, "^name_or_path: unknown 'resnet5'; did you mean"),
    "no bool": (("resnet50",), {"pretrained": "yes"}, TypeError, "^pretrained: True, False or 't"),
    "a number": (("resnet50",), {"pretrained": 1}, TypeError, "^pretrained: True, False or 't"),
    "partial too": (
        ("resnet50",),
        {"partial": "trunk"},
        ValueError,
        "^partial: .*pretrained='trun",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_load_refuses_by_name(case):
    arguments, keywords, kind, match = REFUSED[case]
    with pytest.raises(kind, match=match):
        registry.load(*arguments, **{"pretrained": True, **keywords})


def test_public_weights_are_those_of_architectures():
    assert set(pretrained.PUBLISHED) <= set(architectures.ARCHITECTURES)


@pytest.mark.parametrize("name", pretrained.PUBLISHED)
def test_addresses_are_whole(name):
    url, file, sha256 = pretrained.PUBLISHED[name]
    assert url.startswith("https://") and url.endswith((".safetensors", ".pth"))
    assert pathlib.Path(file).suffix == pathlib.Path(url).suffix
    assert re.fullmatch("|[0-9a-f]{8}|[0-9a-f]{64}", sha256)
    assert len({published.name for published in pretrained.PUBLISHED.values()}) == len(
        pretrained.PUBLISHED
    )


@pytest.mark.parametrize("name", pretrained.PUBLISHED)
def test_images_are_normalised_as_in_training(name):
    known = architectures.ARCHITECTURES[name]
    own = {"googlenet": ((0.5,), (0.5,)), "inceptionv1": ((117 / 255,), (1 / 255,))}
    assert (known.mean, known.std) == own.get(name, IMAGENET)


@pytest.mark.parametrize("norm", [False, True])
def test_timm_s_names_of_vgg_fit(norm):
    module = VGG(stages=(1, 1), widths=(4, 6), dense=8, norm=norm, classes=5)
    shape = (14, 14, 3)
    expected = convert.reference_shapes(module, shape)
    generator = np.random.default_rng(0)
    ours = {name: generator.normal(size=size).astype(np.float32) for name, size in expected.items()}
    heads = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2"}
    heads |= {"classifier.6": "head.fc"}
    timm = {}
    for name, value in ours.items():
        head, leaf = name.rsplit(".", 1)
        if head == "classifier.0" and leaf == "weight":
            value = value.reshape(8, 6, 7, 7)
        elif head == "classifier.3" and leaf == "weight":
            value = value.reshape(8, 8, 1, 1)
        timm[f"{heads.get(head, head)}.{leaf}"] = value
        if leaf == "running_var":
            timm[f"{head}.num_batches_tracked"] = np.array(7)
    fitted = convert.normalise_names(timm, expected)
    assert fitted.keys() == ours.keys()
    assert all(np.array_equal(fitted[name], ours[name]) for name in ours)
