"""Weights that others have published: where they are, and fetching them once, whole, to a cache."""

from __future__ import annotations

import errno
import hashlib
import importlib
import pathlib
import re
import sys
import urllib.parse
from collections.abc import Mapping
from typing import Any, NamedTuple

import safetensors

from rvis import checks, files


class Published(NamedTuple):
    """A public file of weights.

    Attributes:
      url: where it is.
      name: what it is called in the cache.
      sha256: its checksum in hexadecimal, or the first digits of it; empty where nobody tells.
    """

    url: str
    name: str
    sha256: str = ""


def _timm(architecture: str, sha256: str = "") -> Published:
    model = f"{architecture}.tv_in1k"
    url = f"https://huggingface.co/timm/{model}/resolve/main/model.safetensors"
    return Published(url, f"{model}.safetensors", sha256)


def _torchvision(name: str) -> Published:
    sha256 = name.rsplit("-", 1)[1].removesuffix(".pth")
    return Published(f"https://download.pytorch.org/models/{name}", name, sha256)


_TIMM = {
    "vgg11": "682c023808812148d4e60c76d80ad83dbeaf5d50eb1a952a0b836895003151e5",
    "vgg13": "",
    "vgg16": "57b026918159a6bf9faf8405c3a551903768e7138989d9c6224a14227203fad8",
    "vgg19": "11aea017b543ff59233749d8f1cf544cda749378f5790d2fedab841fb86b7669",
    "vgg11_bn": "",
    "vgg13_bn": "7dae235e35772693cd527e7ac9ef8f6594707a14a8d26aabdb83c0baa6847861",
    "vgg16_bn": "88bbedbc8e780413736db38ac4efd41b06fc0e93fd5b8879b584bba63a950129",
    "vgg19_bn": "f8249087e63bae61c6166bb23d7c26efe1b2a43fd9fb5cd60ac6ce00535ba312",
    "resnet18": "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
    "resnet34": "0bb82595a564991a9d424708b33f5d843f5aaed7f6c0886ff10849ff97022235",
    "resnet50": "5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
    "resnet101": "",
    "resnet152": "15897077afdf4d6334dc0c3f8e6fb483afb3faa9298c139f3c6eb29bca6ae5b2",
}

PUBLISHED: Mapping[str, Published] = {
    "alexnet": _torchvision("alexnet-owt-7be5be79.pth"),
    **{architecture: _timm(architecture, sha256) for architecture, sha256 in _TIMM.items()},
    "googlenet": _torchvision("googlenet-1378be20.pth"),
    # Lucid's network, converted for PyTorch; Lucent loads the same file.
    "inceptionv1": Published(
        "https://github.com/ProGamerGov/pytorch-old-tensorflow-models/raw/master/inception5h.pth",
        "inception5h.pth",
    ),
}
"""Each architecture's weights for ImageNet: torchvision's first ones ("IMAGENET1K_V1", BSD-3), in
timm's safetensors files where there are such; for `inceptionv1` those of the distill articles."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TORCH = (b"PK\x03\x04", b"\x80\x02")
"""How PyTorch's files begin: as a zip and, until 2020, as pickles."""


def file(architecture: str) -> pathlib.Path:
    """The published weights of an architecture as a file of the cache, fetched at the first call.

    Args:
      architecture: a name of `PUBLISHED`.

    Raises:
      ValueError: naming `pretrained`, where there is no public file for it; otherwise as `fetch`.
      OSError: as `fetch`.

    Example:
      >>> from rvis.models.weights import pretrained
      >>> pretrained.file("mnist_cnn")
      Traceback (most recent call last):
      ValueError: pretrained: no public weights are known for 'mnist_cnn', only for ...
    """
    if architecture not in PUBLISHED:
        raise ValueError(
            f"pretrained: no public weights are known for {architecture!r}, only for "
            f"{', '.join(PUBLISHED)}; those of the Hugging Face hub are loaded by names "
            f"such as load('timm/{architecture}.…')"
        )
    published = PUBLISHED[architecture]
    return fetch(published.url, files.cache() / published.name, sha256=published.sha256)


def fetch(url: str, path: files.PathLike, *, sha256: str = "") -> pathlib.Path:
    """Fetches `url` to `path` by pooch, unless a whole file is there.

    A file is checked before it gets its name, and again whenever it is found: its SHA-256, as given
    and as the server tells it, and its header. What fails is removed.

    Args:
      url: an http or https address. From https nothing leads to http.
      path: where the file shall be.
      sha256: the checksum expected, or its first digits, in lower case.

    Raises:
      ValueError: naming `url`, where it is no such address or the file is not the one expected.
      ImportError: naming the extra, where a file is to be fetched and pooch is not installed.
      ConnectionError: naming `url`, where it cannot be had.
      OSError: naming `path`, where it cannot be written, as on a full disk.
    """
    path = files.as_path("path", path)
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"url: an address that begins with https:// was expected, given {url!r}")
    if path.is_file() and not _fault(path, path.suffix, sha256):
        return path
    pooch = checks.package("pooch", "download", "fetching published weights")
    try:
        path.unlink(missing_ok=True)
        store = pooch.create(path.parent, "", registry={path.name: None}, urls={path.name: url})
        store.fetch(path.name, downloader=_Download(path, sha256))
    except ConnectionError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"path: {path} could not be written: {reason}; RVIS_CACHE can name another folder"
        # Pooch's own errors have but words.
        code = error.errno or getattr(error.__context__, "errno", None) or errno.EIO
        raise OSError(code, message) from error
    return path


class _Download:
    """Pooch's download by HTTP, with the checks that a file passes before pooch keeps it."""

    def __init__(self, path: pathlib.Path, sha256: str):
        self.path, self.sha256, self.told = path, sha256, ""

    def __call__(self, url: str, output_file: str, store: Any) -> None:
        pooch, requests = importlib.import_module("pooch"), importlib.import_module("requests")
        get = pooch.HTTPDownloader(
            progressbar=sys.stderr.isatty(), hooks={"response": self.answered}
        )
        try:
            get(url, output_file, store)
        # A ValueError is a header that pooch or requests could not read.
        except (requests.RequestException, ConnectionError, ValueError) as error:
            answer = getattr(error, "response", None)
            reason = error if answer is None else f"it answers {answer.status_code} {answer.reason}"
            raise ConnectionError(
                f"url: {url} could not be had: {reason}. Where there is no network, bring that "
                f"file and give weights=PATH, or put it at {self.path}"
            ) from error
        for expected in (self.sha256, self.told):
            if fault := _fault(pathlib.Path(output_file), self.path.suffix, expected):
                raise ValueError(f"url: {url} gave {fault}, and it is not kept")

    def answered(self, answer: Any, *_: Any, **__: Any) -> None:
        """Looks at every answer before a redirect is followed."""
        further = urllib.parse.urljoin(answer.url, answer.headers.get("Location", ""))
        if answer.url.startswith("https://") and not further.startswith("https://"):
            raise ConnectionError(f"it leads to {further}, which is not https")
        tag = answer.headers.get("X-Linked-Etag", "").removeprefix("W/").strip('"').lower()
        self.told = self.told or (tag if _SHA256.fullmatch(tag) else "")


def _fault(path: pathlib.Path, suffix: str, sha256: str) -> str:
    """What is wrong with a file of weights, or "" for nothing."""
    if sha256:
        with open(path, "rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
        if not found.startswith(sha256):
            return f"another file than expected (its SHA-256 is {found}, {sha256} was expected)"
    if suffix != ".safetensors":
        with open(path, "rb") as handle:
            return "" if handle.read(4).startswith(_TORCH) else "no PyTorch file"
    try:
        with safetensors.safe_open(path, framework="numpy"):
            return ""
    except safetensors.SafetensorError as error:
        return f"no whole safetensors file ({error})"
