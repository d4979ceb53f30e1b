"""Public weights: fetched once and whole from a server on this machine, resumed, refused by name."""

from __future__ import annotations

import errno
import hashlib
import http.server
import pathlib
import re
import shutil
import socket
import threading

import jax
import numpy as np
import pytest
from safetensors.numpy import save

from rvis.models import architectures, convert, pretrained, registry
from rvis.models.mnist import MnistCNN
from rvis.models.vgg import VGG

DATA = save({"bias": np.random.default_rng(0).normal(size=50_000).astype(np.float32)})
SHA256 = hashlib.sha256(DATA).hexdigest()
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Shop:
    """What the server has and does, and what was asked of it."""

    data = DATA
    etag: str | None = '"one"'
    ranges = True
    cut: int | None = None
    status = 200
    headers: dict[str, str] = {}
    redirect: str | None = None

    def __init__(self):
        self.asked: list[dict[str, str]] = []


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        shop = self.server.shop
        shop.asked.append({**self.headers, "path": self.path})
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
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and shop.ranges and self.headers.get("If-Range") in (None, shop.etag):
            start = int(asked[1])
            if start >= len(shop.data):
                self.send_error(416)
                return
        body = shop.data[start:]
        self.send_response(206 if start else 200)
        sent = {"Content-Length": str(len(body)), "ETag": shop.etag}
        if start:
            sent["Content-Range"] = f"bytes {start}-{len(shop.data) - 1}/{len(shop.data)}"
        sent |= shop.headers
        for name, value in sent.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body if shop.cut is None else body[: shop.cut])

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
    """The names beside the lock in the cache."""
    return sorted(file.name for file in path.parent.iterdir() if file.name != ".lock")


def cut(shop, url, path, at=70_000):
    """A first call that ends too early; it leaves `at` bytes."""
    shop.cut = at
    with pytest.raises(ConnectionError, match=rf"was cut after {at:,} of {len(shop.data):,} bytes"):
        pretrained.fetch(url, path)
    shop.cut = None


# --- fetching ----------------------------------------------------------------------------------


def test_what_the_server_has_is_what_the_cache_has(shop, url, path):
    assert pretrained.fetch(url, path, sha256=SHA256) == path
    assert path.read_bytes() == DATA and left(path) == [path.name]


def test_the_second_call_asks_nobody(shop, url, path):
    for _ in range(2):
        pretrained.fetch(url, path)
    assert len(shop.asked) == 1


def test_processes_at_once_fetch_once(shop, url, path):
    threads = [threading.Thread(target=pretrained.fetch, args=(url, path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(shop.asked) == 1 and path.read_bytes() == DATA


def test_no_length_told_is_no_harm(shop, url, path):
    shop.headers = {"Content-Length": None}
    assert pretrained.fetch(url, path).read_bytes() == DATA


# --- resuming ----------------------------------------------------------------------------------


def test_a_cut_connection_is_taken_up_where_it_ended(shop, url, path):
    cut(shop, url, path)
    assert (path.parent / (path.name + ".part")).read_bytes() == DATA[:70_000]
    assert pretrained.fetch(url, path).read_bytes() == DATA
    assert shop.asked[1]["Range"] == "bytes=70000-" and shop.asked[1]["If-Range"] == '"one"'
    assert left(path) == [path.name]


def test_ctrl_c_keeps_what_has_come(shop, url, path, monkeypatch):
    class Interrupted(pretrained.tqdm):
        def update(self, n=1):
            raise KeyboardInterrupt

    monkeypatch.setattr(pretrained, "_BLOCK", 50_000)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pretrained, "tqdm", Interrupted)
        pretrained.fetch(url, path)
    assert pretrained.fetch(url, path).read_bytes() == DATA
    assert shop.asked[1]["Range"] == "bytes=50000-"


def test_a_server_without_ranges_sends_all_again(shop, url, path):
    cut(shop, url, path)
    shop.ranges = False
    assert pretrained.fetch(url, path).read_bytes() == DATA


def test_a_changed_file_is_not_glued_to_the_old_one(shop, url, path):
    cut(shop, url, path)
    shop.data, shop.etag = save({"bias": np.ones(60_000, np.float32)}), '"two"'
    assert pretrained.fetch(url, path).read_bytes() == shop.data


@pytest.mark.parametrize("etag", [None, 'W/"one"'])
def test_without_a_strong_etag_nothing_is_resumed(shop, url, path, etag):
    shop.etag = etag
    cut(shop, url, path)
    assert pretrained.fetch(url, path).read_bytes() == DATA
    assert "Range" not in shop.asked[1]


def test_what_another_address_left_is_not_resumed(shop, url, path):
    cut(shop, url + "?old", path)
    assert pretrained.fetch(url, path).read_bytes() == DATA
    assert "Range" not in shop.asked[1]


@pytest.mark.parametrize("told", ["bytes 1-9/10", "bytes 70000-70001/9", "nonsense", None])
def test_a_wrong_range_is_not_glued(shop, url, path, told):
    cut(shop, url, path)
    shop.headers = {"Content-Range": told}
    assert pretrained.fetch(url, path).read_bytes() == DATA
    assert ["Range" in asked for asked in shop.asked] == [False, True, False]


def test_a_part_longer_than_the_file_starts_afresh(shop, url, path):
    cut(shop, url, path)
    with open(path.parent / (path.name + ".part"), "ab") as part:
        part.write(DATA)
    assert pretrained.fetch(url, path).read_bytes() == DATA
    assert ["Range" in asked for asked in shop.asked] == [False, True, False]


# --- checks ------------------------------------------------------------------------------------


def test_a_wrong_checksum_is_refused_and_the_file_removed(shop, url, path):
    with pytest.raises(
        ValueError, match=rf"^url: {url} gave another file .* {SHA256}, 0123abcd was"
    ):
        pretrained.fetch(url, path, sha256="0123abcd")
    assert left(path) == []


def test_eight_digits_of_a_checksum_are_enough(shop, url, path):
    assert pretrained.fetch(url, path, sha256=SHA256[:8]) == path


def test_the_checksum_that_a_redirect_tells_is_checked(shop, url, path):
    shop.redirect = "/there"
    assert pretrained.fetch(url, path).read_bytes() == DATA
    path.unlink()
    shop.data = save({"bias": np.ones(4, np.float32)})
    with pytest.raises(ValueError, match=f"{SHA256} was expected"):
        pretrained.fetch(url, path)


def test_a_checksum_known_to_differ_costs_no_download(shop, url, path):
    shop.headers = {"X-Linked-Etag": f'"{SHA256}"'}
    shop.cut = 0
    with pytest.raises(ValueError, match="gave another file"):
        pretrained.fetch(url, path, sha256="0" * 64)


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
@pytest.mark.parametrize("data", [b"", b"<html>Please log in", DATA[:-1]])
def test_what_is_no_file_of_weights_is_not_kept(shop, url, path, name, data):
    shop.data = data
    with pytest.raises(ValueError, match=r"gave no (whole safetensors|PyTorch) file"):
        pretrained.fetch(url, path.with_name(name))
    assert left(path) == []


@pytest.mark.parametrize("length", ["99999999999999999", "9" * 5000, "-5", "many", "10"])
def test_a_hostile_length_is_refused_or_ignored(shop, url, path, length):
    shop.headers = {"Content-Length": length}
    if length.startswith("99999999999999999") and len(length) < 100:
        with pytest.raises(ValueError, match="announces 99,999,999,999,999,999 bytes"):
            pretrained.fetch(url, path)
    elif length == "10":
        with pytest.raises(ValueError, match="gave no whole safetensors file"):
            pretrained.fetch(url, path)
    else:
        assert pretrained.fetch(url, path).read_bytes() == DATA


def test_a_file_without_end_is_refused(shop, url, path, monkeypatch):
    shop.headers = {"Content-Length": None}
    monkeypatch.setattr(pretrained, "_LARGEST", 100_000)
    with pytest.raises(ValueError, match="does not end"):
        pretrained.fetch(url, path)


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


def test_a_full_disk_is_told_before_anything_comes(shop, url, path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 9))
    with pytest.raises(
        OSError, match=r"path: .* could not be written: it needs .* RVIS_CACHE"
    ) as told:
        pretrained.fetch(url, path)
    assert told.value.errno == errno.ENOSPC


def test_a_disk_that_fills_up_is_named_and_what_has_come_is_kept(shop, url, path, monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(pretrained, "_BLOCK", 50_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, hard))
    try:
        with pytest.raises(
            OSError, match="^.Errno 27. path: .*safetensors could not be written: File"
        ):
            pretrained.fetch(url, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert pretrained.fetch(url, path).read_bytes() == DATA
    assert shop.asked[1]["Range"] == "bytes=120000-"


def test_a_folder_that_is_a_file_is_named(shop, url, tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(OSError, match=r"path: .*model.safetensors could not be written"):
        pretrained.fetch(url, tmp_path / "cache" / "model.safetensors")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/x", "model.safetensors"])
def test_other_addresses_are_refused(url, path):
    with pytest.raises(ValueError, match="^url: an address that begins with https://"):
        pretrained.fetch(url, path)


def test_https_does_not_lead_to_http():
    request = pretrained.urllib.request.Request("https://example.org/x")
    with pytest.raises(pretrained.urllib.error.URLError, match="not https"):
        pretrained._Redirects().redirect_request(request, None, 302, "", {}, "http://example.org/x")


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
    assert pretrained.folder() == pathlib.Path(folder)


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
    "no bool": (("resnet50",), {"pretrained": "yes"}, TypeError, "^pretrained: True or False"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_load_refuses_by_name(case):
    arguments, keywords, kind, match = REFUSED[case]
    with pytest.raises(kind, match=match):
        registry.load(*arguments, **{"pretrained": True, **keywords})


def test_a_pytorch_file_is_not_fetched_in_vain(monkeypatch, tmp_path):
    monkeypatch.setenv("RVIS_CACHE", str(tmp_path))
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        ImportError, match=r"^pretrained: .*alexnet-owt-7be5be79.pth.*rvis\[convert\]"
    ):
        registry.load("alexnet", pretrained=True)
    assert not list(tmp_path.iterdir())


def test_every_architecture_for_imagenet_has_public_weights():
    large = [
        name for name, known in architectures.ARCHITECTURES.items() if known.input_shape[0] == 224
    ]
    assert sorted(large) == sorted(pretrained.PUBLISHED)


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
