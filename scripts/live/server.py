"""A live window: a browser sends its camera's frames, and sees what a layer makes of each of them.

It is the Deep Visualization Toolbox (Yosinski et al. 2015) as a page of this machine alone.
"""

from __future__ import annotations

import base64
import contextlib
import html
import http.server
import io
import json
import math
import re
import socket
import socketserver
import sys
import threading
import time
import urllib.parse
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps

from rvis import checks, objectives
from rvis.analysis import deconv
from rvis.data.pictures import open_picture
from rvis.models import taps
from rvis.plotting import grids, reports
from rvis.types import LOGITS, Array, ArrayLike, Model, Relu, layer_shapes
from rvis.visualization import visualize

LIMIT = 8 * 2**20
"""Bytes that a frame may have."""
_PIXELS = 4096**2
"""Pixels that a frame may have: few bytes can stand for very many of them."""
_SHEET = 1024
"""Pixels of a sheet's longer side, above which its maps are shrunk."""
_TILE = 16
"""Pixels of a map's longer side in a sheet, up to which it is enlarged."""
_PATIENCE, _MOST = 30.0, 128
"""Seconds that a request may take to come, and how many may be on their way."""
_STEPS = 64
"""Of gradient ascent, for a channel's picture."""
_HOSTS = ("127.0.0.1", "localhost")
_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?")


class View(NamedTuple):
    """What a network makes of one frame.

    Attributes:
      probabilities: (classes,), the softmax of the logits.
      maps: (h, w, channels), the layer's activations; (1, 1, channels) for a dense layer.
      gradient: (H, W, C), signed: the gradient of ½‖a‖² with respect to the frame, where a are the
        channel's activations, all places together.
      deconvnet: the same way back through rectified gradients; None for a model
        without any.
    """

    probabilities: Array
    maps: Array
    gradient: Array
    deconvnet: Array | None


def look(model: Model, frame: ArrayLike, layer: str, unit: int) -> View:
    """One frame through a network and back: all that the live window shows of it.

    It is one compiled program for a layer, whatever the channel. Back from the layer go the
    channel's own activations and zeros for every other, as in the toolbox.

    Args:
      model: any model.
      frame: (H, W, C), float32 in [0, 1], of the model's `input_shape`.
      layer: a name of `model.layers`, or "logits".
      unit: a channel's number.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> from scripts.live import server
      >>> model = rvis.load("mnist_cnn")
      >>> view = live.look(model, np.full((28, 28, 1), 0.5, np.float32), "pool1", 3)
      >>> view.maps.shape, view.gradient.shape
      ((14, 14, 32), (28, 28, 1))

    Reference: Yosinski et al. 2015, Understanding Neural Networks Through Deep Visualization,
      section 2; yosinski/deep-visualization-toolbox, `caffevis/caffe_proc_thread.py`.
    """
    shapes = layer_shapes(model)
    checks.choice("layer", layer, shapes)
    number = checks.integers("unit", unit, high=shapes[layer][-1], what=f"layer {layer!r}")
    image = checks.images("frame", frame, shape=model.input_shape)[0]
    ruled = bool(getattr(model.apply, "takes_relu", True))
    return _look(model.unnamed(), image, jnp.asarray(number), layer=layer, ruled=ruled)


@partial(jax.jit, static_argnames=("layer", "ruled"))
def _look(model: Model, frame: Array, unit: Array, *, layer: str, ruled: bool) -> View:
    def back(relu: Relu) -> tuple[Array, Array, Array]:
        def forward(image: Array) -> tuple[Array, Array]:
            found = taps.activations(model, image[None], (layer, LOGITS), relu=relu)
            return found[layer][0], found[LOGITS][0]

        activations, pull, logits = jax.vjp(forward, frame, has_aux=True)
        own = jnp.where(jnp.arange(activations.shape[-1]) == unit, activations, 0)
        return pull(own)[0], activations, logits

    gradient, activations, logits = back(jax.nn.relu)
    maps = activations.reshape((1,) * (3 - activations.ndim) + activations.shape)
    deconvnet = back(taps.deconvnet_relu)[0] if ruled else None
    return View(jax.nn.softmax(logits), maps, gradient, deconvnet)


def sheet(maps: ArrayLike) -> Image.Image:
    """All channels of a layer as one picture, row by row, each scaled to its own largest magnitude.

    Zero is black, what is above it white, what is below it blue. Maps of a single value are scaled
    together instead: alone, each would be full.

    Args:
      maps: (h, w, channels), any finite numbers.

    Returns:
      ⌈√channels⌉ equal tiles in a row, each with a dark line to its right and below.

    Example:
      >>> import numpy as np
      >>> from scripts.live import server
      >>> live.sheet(np.ones((7, 7, 12))).size
      (60, 45)
    """
    values = _scaled(maps)
    height, width, channels = values.shape
    columns = math.ceil(math.sqrt(channels))
    shrink = math.ceil(max(height, width) * columns / _SHEET)
    if shrink > 1:
        rows, across = height // shrink, width // shrink
        cut = values[: rows * shrink, : across * shrink]
        values = cut.reshape(rows, shrink, across, shrink, channels).mean((1, 3))
    enlarge = max(1, _TILE // max(height, width))
    tiles = _coloured(np.moveaxis(values.repeat(enlarge, 0).repeat(enlarge, 1), -1, 0))
    lined = np.pad(tiles, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=0.2)
    return grids.spritemap(lined, columns=columns)


def _scaled(maps: ArrayLike) -> np.ndarray:
    """Maps in [−1, 1], each by its largest magnitude; of a single value, all by one."""
    values = np.asarray(maps, np.float32)
    peak = np.abs(values).max((0, 1) if values[..., 0].size > 1 else None)
    return values / np.where(peak > 0, peak, 1)


_ABOVE, _BELOW = np.ones(3, np.float32), np.array([0.25, 0.55, 1], np.float32)


def _coloured(level: np.ndarray) -> np.ndarray:
    """(…, 3) of values in [−1, 1]."""
    return np.abs(level)[..., None] * np.where(level[..., None] < 0, _BELOW, _ABOVE)


class Window(socketserver.ThreadingTCPServer):
    """The live window's server, on 127.0.0.1 alone.

    `GET /` is the page. `POST /view?layer=…&unit=…` takes a frame (JPEG or PNG) and answers with
    JSON: the pictures of its `View` as data URLs, and the five most probable classes.
    `POST /picture?layer=…&unit=…` answers with a picture that raises the channel, made once. What
    is wrong with a request is said in plain text, with a status of 400 or more. Only requests to
    127.0.0.1 or localhost are answered, and none from the pages of others.

    Args:
      model: any model of grey or RGB images.
      layer: the one shown first; by default the last with places.
      port: where to listen; 0 is any free one.

    Attributes:
      address: what to open in a browser.

    Raises:
      TypeError, ValueError: naming the argument.
      OSError: naming `port`, where it is in use or not allowed.

    Example:
      >>> import rvis
      >>> from scripts.live import server
      >>> with live.Window(rvis.load("mnist_cnn"), port=0) as window:
      ...     print(window.address)  # and window.serve_forever()
      http://127.0.0.1:.../
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = _MOST

    def __init__(self, model: Model, *, layer: str | None = None, port: int = 8000) -> None:
        shapes = layer_shapes(model)
        if layer is None:
            layer = [LOGITS, *(name for name, shape in shapes.items() if len(shape) == 3)][-1]
        checks.choice("layer", layer, shapes)
        checks.integers("port", port, high=65536)
        if model.input_shape[2] not in (1, 3):
            raise ValueError(
                f"model: grey or RGB images were expected, {model.name} takes {model.input_shape}"
            )
        self._model = model
        self._pictures: dict[tuple[str, int], dict[str, Any]] = {}
        # Apart, so that frames go on while a picture is made.
        self._looking, self._painting = threading.RLock(), threading.RLock()
        self._closed = False
        self._coming: dict[socket.socket, float] = {}
        self._page = _page(model, shapes, layer).encode()
        try:
            super().__init__((_HOSTS[0], port), _Handler)
        except OSError as error:
            raise OSError(
                f"port: a free one was expected (0 takes any), given {port}: {error.strerror}"
            ) from error

    @property
    def address(self) -> str:
        return f"http://{_HOSTS[0]}:{self.server_address[1]}/"

    def view(self, frame: bytes, layer: str, unit: int) -> dict[str, Any]:
        """What `POST /view` answers.

        Raises:
          TypeError, ValueError: naming `frame`, `layer` or `unit`.
          FloatingPointError: where the network gives NaN or infinity.
          RuntimeError: where the window is closed.
        """
        with self._looking:
            self._refuse_closed()
            return _seen(self._model, frame, layer, unit)

    def picture(self, layer: str, unit: int) -> dict[str, Any]:
        """What `POST /picture` answers.

        Raises:
          TypeError, ValueError: naming `layer` or `unit`.
          FloatingPointError: where the channel becomes NaN.
        """
        with self._painting:
            self._refuse_closed()
            if (layer, unit) not in self._pictures:
                began = time.perf_counter()
                wanted = objectives.channel(layer, unit)
                found = visualize(self._model, wanted, steps=_STEPS, progress=False)
                self._pictures[layer, unit] = {
                    "layer": layer,
                    "unit": unit,
                    "picture": _url(grids.to_pil(np.asarray(found.images))),
                    "dead": bool(found.dead),
                    "seconds": time.perf_counter() - began,
                }
            return self._pictures[layer, unit]

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._coming) >= _MOST:
            # The threads of others take theirs out meanwhile.
            _end(min(list(self._coming), key=lambda each: self._coming.get(each, math.inf)))
        self._coming[request] = time.monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Ends connections whose request does not come."""
        late = time.monotonic() - _PATIENCE
        for request, began in list(self._coming.items()):
            if began < late:
                _end(request)

    def came(self, request: Any) -> None:
        """Of this connection the request is here, or it is closed."""
        self._coming.pop(request, None)

    def shutdown_request(self, request: Any) -> None:
        self.came(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Closes the socket once nothing is being computed, and lets nothing begin any more."""
        super().server_close()
        # A thread that is inside JAX when Python ends aborts the whole process.
        with self._looking, self._painting:
            self._closed = True

    def _refuse_closed(self) -> None:
        if self._closed:
            raise RuntimeError("the window is closed")

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # the page was closed
            super().handle_error(request, client_address)


def _end(request: socket.socket) -> None:
    """Whoever waits for it reads its end."""
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


def decode(frame: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """A frame as a model takes it: `shape` (H, W, C), float32 in [0, 1].

    Args:
      frame: a JPEG or PNG file. It is cut at its centre to the aspect of `shape` and resized.
      shape: (H, W, C), C = 1 for grey, 3 for RGB.

    Raises:
      ValueError: naming `frame`, where it is no such file, is damaged or has too many pixels.

    Example:
      >>> import io
      >>> from PIL import Image
      >>> from scripts.live import server
      >>> Image.new("RGB", (40, 30), "red").save(file := io.BytesIO(), format="PNG")
      >>> live.decode(file.getvalue(), (8, 8, 3))[0, 0].tolist()
      [1.0, 0.0, 0.0]
    """
    try:
        with open_picture(frame, ("JPEG", "PNG")) as image:
            if math.prod(image.size) > _PIXELS:
                raise ValueError(f"at most {_PIXELS} pixels, given {image.size}")
            upright = image.convert("L" if shape[2] == 1 else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        what = "empty" if not frame else f"{len(frame)} bytes"
        raise ValueError(
            f"frame: a whole JPEG or PNG image was expected, given {what} ({error})"
        ) from error
    fitted = ImageOps.fit(upright, shape[1::-1], method=Image.Resampling.BICUBIC)
    return np.asarray(fitted, np.float32).reshape(shape) / 255


def _seen(model: Model, frame: bytes, layer: str, unit: int) -> dict[str, Any]:
    """A frame's `View` as JSON takes it."""
    began = time.perf_counter()
    image = decode(frame, model.input_shape)
    view = jax.device_get(look(model, image, layer, unit))
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(view)):
        raise FloatingPointError(f"layer: {layer!r} or its gradient became NaN or infinite")
    channels = view.maps.shape[-1]
    columns = math.ceil(math.sqrt(channels))
    best = np.argsort(-view.probabilities, kind="stable")[:5]
    names = model.classes or [f"class {i}" for i in range(len(view.probabilities))]
    return {
        "layer": layer,
        "unit": unit,
        "frame": _url(grids.to_pil(image)),
        "classes": [[names[i], float(view.probabilities[i])] for i in best],
        "sheet": _url(sheet(view.maps)),
        "columns": columns,
        "rows": math.ceil(channels / columns),
        "map": _url(grids.to_pil(_coloured(_scaled(view.maps)[..., unit]))),
        "range": [float(end(view.maps[..., unit])) for end in (np.min, np.max)],
        "gradient": _signed(view.gradient),
        "deconvnet": None if view.deconvnet is None else _signed(view.deconvnet),
        "seconds": time.perf_counter() - began,
    }


def _signed(pixels: np.ndarray) -> str:
    return _url(grids.to_pil(deconv.centred(pixels)))


def _url(picture: Image.Image) -> str:
    held = io.BytesIO()
    picture.save(held, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()


def _page(model: Model, shapes: dict[str, tuple], layer: str) -> str:
    template = Path(__file__).with_name("page.html").read_text("utf-8")
    side = max(model.input_shape[:2])
    about = {"layers": list(shapes.items()), "layer": layer, "side": side}
    return reports.fill(template, title=html.escape(model.name), data=reports.script_data(about))


class _Refused(Exception):
    """A request that is not answered: a status and why."""


_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data: blob:; media-src blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    server: Window
    timeout = _PATIENCE

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: there are many frames a second."""

    def _get(self) -> tuple[str, bytes]:
        self.server.came(self.connection)
        if urllib.parse.urlsplit(self.path).path != "/":
            raise _Refused(404, f"{self.path}: there is only / here")
        return "text/html", self.server._page

    def _post(self) -> tuple[str, bytes]:
        body = self._body()
        self.server.came(self.connection)
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path not in ("/view", "/picture"):
            raise _Refused(404, f"{url.path}: /view or /picture was expected")
        layer, unit = query.get("layer", ""), query.get("unit", "")
        if not unit.isdecimal():
            raise _Refused(400, f"unit: a channel's number was expected, given {unit!r}")
        if url.path == "/picture":
            found = self.server.picture(layer, int(unit))
        else:
            found = self.server.view(body, layer, int(unit))
        return "application/json", json.dumps(found).encode()

    def _body(self) -> bytes:
        given = self.headers.get("Content-Length", "")
        if not given.isdecimal():
            raise _Refused(411, f"Content-Length: a number of bytes was expected, given {given!r}")
        length = int(given)
        if length > LIMIT:
            # Read first: closing on unread bytes would lose the answer. But not without end.
            left = min(length, 8 * LIMIT)
            while left > 0 and (part := self.rfile.read(min(left, 2**16))):
                left -= len(part)
            raise _Refused(413, f"frame: at most {LIMIT} bytes were expected, given {length}")
        body = self.rfile.read(length)
        if len(body) < length:
            raise _Refused(400, f"frame: {length} bytes were announced, {len(body)} came")
        return body

    def _answer(self, make: Any) -> None:
        try:
            self._check_source()
            status, (kind, content) = 200, make()
        except _Refused as error:
            status, kind, content = error.args[0], "text/plain", error.args[1].encode()
        except (TypeError, ValueError) as error:
            status, kind, content = 400, "text/plain", str(error).encode()
        except FloatingPointError as error:
            status, kind, content = 500, "text/plain", str(error).encode()
        except OSError:  # the connection's own
            raise
        except Exception as error:
            # What a library says may have paths of this machine: it goes to the terminal alone.
            self.server.handle_error(self.connection, self.client_address)
            status, kind, content = 500, "text/plain", type(error).__name__.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def _check_source(self) -> None:
        """Refuses foreign names for this machine (DNS rebinding) and foreign pages' requests."""
        host = self.headers.get("Host", "")
        if not _HOST.fullmatch(host):
            raise _Refused(403, f"Host: 127.0.0.1 or localhost was expected, given {host!r}")
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{host}":
            raise _Refused(403, f"Origin: http://{host} was expected, given {origin!r}")
