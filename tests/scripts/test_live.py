"""The live window: what it computes of a frame, what it answers and refuses, and its page."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import rvis
from scripts.live import __main__ as script
from scripts.live import server
from tests import toys

MODEL = toys.pointwise()
HEIGHT, WIDTH, _ = MODEL.input_shape


def encoded(kind="PNG", size=(24, 16)):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    PIL.Image.fromarray(pixels).save(file := io.BytesIO(), format=kind)
    return file.getvalue()


FRAME = encoded()


@contextlib.contextmanager
def serving(model, **options):
    with server.Window(model, port=0, **options) as window:
        thread = threading.Thread(target=window.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield window
        finally:
            window.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def window():
    with serving(MODEL) as window:
        yield window


def ask(window, method, path, body=None, **headers):
    """Status, headers and body of one request; a header of None is left out."""
    there = http.client.HTTPConnection("127.0.0.1", window.server_address[1], timeout=60)
    headers = {"Host": f"127.0.0.1:{window.server_address[1]}"} | headers
    there.putrequest(method, path, skip_host=True)
    if body is not None:
        headers.setdefault("Content-Length", str(len(body)))
    for name, value in headers.items():
        there.putheader(name.replace("_", "-"), value)
    there.endheaders(body)
    answer = there.getresponse()
    found = answer.status, answer.headers, answer.read()
    there.close()
    return found


def view(window, layer, unit, frame=FRAME):
    status, _, body = ask(window, "POST", f"/view?layer={layer}&unit={unit}", frame)
    assert status == 200, body
    return json.loads(body)


def picture(url):
    head, data = url.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(data))))


# What is computed.


def test_what_comes_back_by_hand():
    rng = np.random.default_rng(1)
    image = rng.random(MODEL.input_shape, np.float32)
    weights, dense = (np.asarray(MODEL.params[name]) for name in ("conv", "dense"))
    before = image @ weights
    on = before > 0

    seen = server.look(MODEL, image, "conv", 2)
    np.testing.assert_allclose(seen.maps, before, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen.gradient, before[..., 2:3] * weights[:, 2], atol=1e-5)
    np.testing.assert_allclose(seen.deconvnet, seen.gradient)  # no ReLU was passed

    logits = (before * on).mean((0, 1)) @ dense
    np.testing.assert_allclose(seen.probabilities, np.exp(logits) / np.exp(logits).sum(), rtol=1e-5)

    for layer in ("dense", "logits"):
        seen = server.look(MODEL, image, layer, 1)
        np.testing.assert_allclose(seen.maps, logits[None, None], rtol=1e-5)
        pull = logits[1] * dense[:, 1] / (HEIGHT * WIDTH)
        np.testing.assert_allclose(seen.gradient, (on * pull) @ weights.T, atol=1e-6)
        ruled = np.broadcast_to(np.maximum(pull, 0) @ weights.T, image.shape)
        np.testing.assert_allclose(seen.deconvnet, ruled, atol=1e-6)


def test_a_network_with_its_own_relus_has_no_deconvnet_view():
    class Own:
        takes_relu = False

        def __call__(self, params, images, *, tap=rvis.types.identity, relu=None):
            return toys.apply(params, images, tap=tap)

    seen = server.look(
        MODEL.replace(apply=Own()), np.zeros(MODEL.input_shape, np.float32), "conv", 0
    )
    assert seen.deconvnet is None and seen.gradient.shape == MODEL.input_shape


def test_another_channel_compiles_nothing(window):
    view(window, "relu", 0)
    programs = server._look._cache_size()
    for unit in (1, 2, 3):
        view(window, "relu", unit)
    assert server._look._cache_size() == programs


@pytest.mark.parametrize(
    ("frame", "layer", "unit", "message"),
    [
        (np.zeros(MODEL.input_shape), "rely", 0, "layer: unknown 'rely'; did you mean 'relu'"),
        (np.zeros(MODEL.input_shape), "relu", 4, "unit: 0 to 3 of layer 'relu' were expected"),
        (np.zeros((5, 8, 3)), "relu", 0, "frame: (6, 8, 3) an image was expected"),
        (np.full(MODEL.input_shape, 2.0), "relu", 0, "frame: values in [0, 1]"),
    ],
)
def test_what_cannot_be_looked_at(frame, layer, unit, message):
    with pytest.raises(ValueError) as error:
        server.look(MODEL, frame, layer, unit)
    assert message in str(error.value)


# The sheet.


def test_each_map_fills_its_scale():
    maps = np.zeros((20, 20, 5), np.float32)
    maps[3, 4] = [0, 1, 10, -1, -10]
    maps[5, 6] = [0, 0.5, 5, 0.5, 5]
    tiles = np.asarray(server.sheet(maps))
    assert tiles.shape == (2 * 21, 3 * 21, 3)
    shown = [tiles[r * 21 :, c * 21 :] for r, c in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1))]
    assert not shown[0][:20, :20].any()
    for one in shown[1:3]:
        assert one[3, 4].tolist() == [255] * 3 and one[5, 6].tolist() == [128] * 3
    for one in shown[3:]:  # what is below zero is blue
        assert one[3, 4, 2] == 255 > one[3, 4, 0] and one[5, 6].tolist() == [128] * 3
    assert tiles[20, 0].tolist() == tiles[0, 20].tolist() == [51] * 3


def test_single_values_share_one_scale():
    tiles = np.asarray(server.sheet(np.float32([[[1, 2, 4]]])))
    assert [tiles[r, c, 0] for r, c in ((0, 0), (0, 17), (17, 0))] == [64, 128, 255]


def test_large_sheets_shrink():
    picture = server.sheet(np.ones((300, 200, 9), np.float32))
    assert picture.size == (3 * 201, 3 * 301)
    assert max(server.sheet(np.ones((300, 200, 64), np.float32)).size) <= 1024 + 8


# What is answered.


@pytest.mark.parametrize(("kind", "size"), [("PNG", (24, 16)), ("JPEG", (16, 40))])
def test_a_frame_is_answered_as_the_network_sees_it(window, kind, size):
    frame = encoded(kind, size)
    seen = view(window, "conv", 1, frame)
    image = server.decode(frame, MODEL.input_shape)
    np.testing.assert_array_equal(picture(seen["frame"]), np.rint(255 * image))
    expected = server.look(MODEL, image, "conv", 1)
    best = np.argsort(-np.asarray(expected.probabilities))
    assert [name for name, _ in seen["classes"]] == [f"c{i}" for i in best]
    assert seen["classes"][0][1] == pytest.approx(float(expected.probabilities.max()))
    np.testing.assert_array_equal(picture(seen["sheet"]), server.sheet(expected.maps))
    own = np.asarray(expected.maps[..., 1])
    assert seen["range"] == pytest.approx([own.min(), own.max()])
    assert (seen["columns"], seen["rows"]) == (2, 2)
    assert picture(seen["map"]).shape == picture(seen["gradient"]).shape == (HEIGHT, WIDTH, 3)
    grey = rvis.analysis.deconv.centred(expected.deconvnet)
    np.testing.assert_allclose(picture(seen["deconvnet"]), 255 * grey, atol=0.51)


def test_grey_networks_get_grey_frames():
    shape = (6, 8, 1)
    image = server.decode(FRAME, shape)
    luma = PIL.Image.open(io.BytesIO(FRAME)).convert("L")
    assert image.shape == shape
    assert image.mean() == pytest.approx(np.asarray(luma).mean() / 255, abs=0.02)


def test_a_channels_picture_is_made_once(window, monkeypatch):
    made = []
    real = server.visualize
    monkeypatch.setattr(server, "visualize", lambda *a, **k: made.append(a) or real(*a, **k))
    monkeypatch.setattr(server, "_STEPS", 4)
    first, second = (ask(window, "POST", "/picture?layer=relu&unit=3", b"")[2] for _ in "ab")
    assert first == second and len(made) == 1
    assert picture(json.loads(first)["picture"]).shape == MODEL.input_shape


def test_the_page_needs_nothing_from_elsewhere(window):
    status, headers, page = ask(window, "GET", "/")
    assert status == 200 and headers["Content-Type"].startswith("text/html")
    assert b"http://" not in page and b"https://" not in page and b"{{" not in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert b'["relu", [6, 8, 4]]' in page and b'"layer": "relu"' in page


# What is refused.

LONG = bytes(server.LIMIT + 1)


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "message"),
    [
        ("/view?layer=relu&unit=0", b"", {}, 400, "frame: a whole JPEG or PNG"),
        ("/view?layer=relu&unit=0", b"nonsense", {}, 400, "given 8 bytes"),
        ("/view?layer=relu&unit=0", FRAME[:-200], {}, 400, "frame: a whole JPEG or PNG"),
        ("/view?layer=relu&unit=0", encoded("GIF"), {}, 400, "frame: a whole JPEG or PNG"),
        ("/view?layer=relu&unit=0", LONG, {}, 413, f"frame: at most {server.LIMIT} bytes"),
        ("/view?layer=rely&unit=0", FRAME, {}, 400, "layer: unknown 'rely'; did you mean 'relu'"),
        ("/view?unit=0", FRAME, {}, 400, "layer: unknown ''; it can be one of 'conv'"),
        ("/view?layer=relu&unit=4", FRAME, {}, 400, "unit: 0 to 3 of layer 'relu' were expected"),
        ("/view?layer=relu&unit=-1", FRAME, {}, 400, "unit: a channel's number was expected"),
        (f"/view?layer=relu&unit={'9' * 30}", FRAME, {}, 400, "unit"),
        ("/picture?layer=relu&unit=4", b"", {}, 400, "unit: 0 to 3 of layer 'relu' were expected"),
        ("/elsewhere", FRAME, {}, 404, "/view or /picture was expected"),
        ("/view?layer=relu&unit=0", None, {}, 411, "Content-Length: a number of bytes"),
        ("/", FRAME, {"Host": "evil.example"}, 403, "Host: 127.0.0.1 or localhost"),
        ("/", FRAME, {"Host": "127.0.0.1.evil.example"}, 403, "Host: 127.0.0.1 or localhost"),
        ("/", FRAME, {"Host": "127.0.0.1:8123@evil.example"}, 403, "Host: 127.0.0.1 or localhost"),
        ("/", FRAME, {"Host": "localhost:evil"}, 403, "Host: 127.0.0.1 or localhost"),
        ("/", FRAME, {"Origin": "http://evil.example"}, 403, "Origin: http://127.0.0.1"),
    ],
)
def test_what_is_wrong_is_said_and_the_server_lives_on(
    window, path, body, headers, status, message
):
    found, answered, said = ask(window, "POST", path, body, **headers)
    assert found == status and answered["Content-Type"].startswith("text/plain")
    assert message in said.decode()
    assert ask(window, "GET", "/")[0] == 200


def test_few_bytes_of_too_many_pixels():
    PIL.Image.new("1", (5000, 4000)).save(file := io.BytesIO(), format="PNG")
    with pytest.raises(ValueError, match=r"frame: .*at most 16777216 pixels, given \(5000"):
        server.decode(file.getvalue(), MODEL.input_shape)


def test_foreign_names_get_no_page(window):
    assert ask(window, "GET", "/", Host="evil.example:8000")[0] == 403
    assert ask(window, "GET", "/", Host="localhost:9000")[0] == 200
    assert ask(window, "GET", "/weights")[0] == 404


def test_a_client_that_leaves_harms_nobody(window, capsys):
    head = "POST /view?layer=relu&unit=0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n"
    with socket.create_connection(window.server_address) as there:
        there.sendall(head.encode() + b"half")
    assert view(window, "relu", 0)["unit"] == 0
    assert capsys.readouterr().err == ""


HALF = b"POST /view?layer=relu&unit=0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n"


def test_fifty_slow_clients_stop_nobody_and_are_sent_away(window, monkeypatch):
    view(window, "relu", 0)
    with contextlib.ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(window.server_address)) for _ in range(50)
        ]
        for number, there in enumerate(slow):
            there.sendall(HALF + b"\r\npart of a frame" if number % 2 else HALF)
        began = time.monotonic()
        assert view(window, "relu", 1)["unit"] == 1
        assert time.monotonic() - began < 5
        monkeypatch.setattr(server, "_PATIENCE", 0.0)
        for there in slow:
            there.settimeout(20)
            while there.recv(2**16):  # what was said of half a frame, and the end
                pass
    end = time.monotonic() + 20
    while window._coming:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_more_clients_than_there_is_room_for_push_out_the_oldest(window, monkeypatch):
    monkeypatch.setattr(server, "_MOST", 4)
    with contextlib.ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(window.server_address)) for _ in range(9)
        ]
        slow[0].settimeout(20)
        assert slow[0].recv(1) == b""
        assert view(window, "relu", 0)["unit"] == 0


def test_what_a_library_says_stays_in_the_terminal(window, monkeypatch, capsys):
    def fails(*_):
        raise RuntimeError("no such file: /home/somebody/secret")

    monkeypatch.setattr(server, "_seen", fails)
    status, _, said = ask(window, "POST", "/view?layer=relu&unit=0", FRAME)
    assert status == 500 and said == b"RuntimeError"
    assert "/home/somebody/secret" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("mnist_cnm", "unknown 'mnist_cnm'; did you mean 'mnist_cnn"),
        ("mnist_cnn --layer conv9", "layer: unknown 'conv9'; did you mean 'conv"),
        ("mnist_cnn --port 70000", "port: 0 to 65535 were expected, given 70000"),
        ("mnist_cnn --port {taken}", "port: a free one was expected (0 takes any), given {taken}"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(window, words, message, capsys):
    taken = window.server_address[1]
    assert script.main(words.format(taken=taken).split()) == 2
    said = capsys.readouterr().err
    assert message.format(taken=taken) in said and said.count("\n") == 1


def test_networks_of_other_images_are_refused():
    with pytest.raises(ValueError, match="model: grey or RGB images were expected"):
        server.Window(toys.pointwise(channels=5), port=0)


# A process that a shell began in the background ignores SIGINT, and so do its children.
INTERRUPTIBLE = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["scripts/live.py", "mnist_cnn", "--port", "0"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_command_serves_until_it_is_interrupted():
    home = Path(__file__).parents[2]
    command = [sys.executable, "-u", "-c", INTERRUPTIBLE]
    environment = os.environ | {"PYTHONPATH": str(home)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=home, env=environment, text=True, **pipes) as running:
        try:
            address = running.stdout.readline().split()[0]
            there = http.client.HTTPConnection(urllib.parse.urlsplit(address).netloc, timeout=60)
            there.request("POST", "/view?layer=conv1&unit=31", FRAME)
            assert json.loads(there.getresponse().read())["unit"] == 31
            there.request("POST", "/view?layer=conv2&unit=0", FRAME)
            time.sleep(0.05)  # it is being compiled, and must not end with Python
            running.send_signal(signal.SIGINT)
            said = running.communicate(timeout=60)[1]
        finally:
            running.kill()
    assert running.returncode == 130 and said == "live: interrupted\n"


# The page, in a browser.


class Browser:
    """A headless Chromium with one page, spoken to through its debugging pipe."""

    def __init__(self, browser, profile, *flags):
        theirs, self._to = os.pipe()
        self._from, ours = os.pipe()
        usual = "--headless --no-sandbox --disable-gpu --disable-background-networking"
        usual += " --no-first-run --remote-debugging-pipe"
        command = [browser, *usual.split(), f"--user-data-dir={profile}", *flags]
        # Chromium reads from file 3 and writes to file 4.
        shell = ["sh", "-c", f'exec "$@" 3</dev/fd/{theirs} 4>/dev/fd/{ours}', "sh", *command]
        self._process = subprocess.Popen(
            shell, pass_fds=(theirs, ours), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs)
        os.close(ours)
        self._rest, self._count, self._session = b"", 0, {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        opened = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": opened["sessionId"]}

    def call(self, method, **arguments):
        self._count += 1
        message = {"id": self._count, "method": method, "params": arguments} | self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                part = os.read(self._from, 2**20)
                assert part, "the browser ended"
                self._rest += part
            told, self._rest = self._rest.split(b"\0", 1)
            answer = json.loads(told)
            if answer.get("id") == self._count:
                return answer["result"]

    def value(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def wait(self, expression):
        end = time.monotonic() + 60
        while self.value(expression) is not True:
            told = self.value("document.getElementById('told').textContent")
            assert time.monotonic() < end, f"{expression} never came true; the page says {told!r}"
            time.sleep(0.05)

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key)

    def close(self):
        self._process.terminate()
        self._process.wait(60)
        os.close(self._to)
        os.close(self._from)


def test_the_page_shows_the_camera_in_a_browser(window, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    flags = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    browser = Browser(chromium, tmp_path / "profile", *flags)
    try:
        browser.call("Page.navigate", url=window.address)
        browser.wait("document.getElementById('rate')?.textContent.endsWith('frames/s')")
        assert browser.value("document.querySelectorAll('#bars li').length") == 2
        assert "c0" in browser.value("document.getElementById('bars').textContent")
        assert browser.value("document.querySelector('#sheet img').naturalWidth") == 2 * 17
        assert browser.value("document.getElementById('frame').naturalWidth") == WIDTH
        browser.press("ArrowRight")
        browser.press("ArrowDown")
        assert browser.value("document.getElementById('unit-title').textContent") == "relu:3"
        browser.press("p")
        browser.wait("document.getElementById('rate').textContent === 'paused'")
        held = browser.value("document.getElementById('frame').src")
        browser.press("PageUp")
        browser.wait("document.getElementById('range').textContent.includes('−')")
        assert browser.value("document.getElementById('layer').value") == "conv"
        assert browser.value("document.getElementById('frame').src") == held
        wide = "document.documentElement.scrollWidth <= innerWidth"
        for width in (390, 1280):
            size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
            browser.call("Emulation.setDeviceMetricsOverride", **size)
            assert browser.value(wide) is True
    finally:
        browser.close()
