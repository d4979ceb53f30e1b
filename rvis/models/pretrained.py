"""Weights that others have published: where they are, and fetching them once, whole, to a cache."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import importlib.util
import json
import os
import pathlib
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

import safetensors
from tqdm import tqdm

from rvis import files


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

_BLOCK = 1 << 20
_LARGEST = 1 << 31
_PATIENCE = 30.0
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})")
_TORCH = (b"PK\x03\x04", b"\x80\x02")
"""How PyTorch's files begin: as a zip and, until 2020, as pickles."""


def folder() -> pathlib.Path:
    """Where fetched files are kept: $RVIS_CACHE, else rvis in $XDG_CACHE_HOME, else ~/.cache/rvis.

    Example:
      >>> import os
      >>> from unittest import mock
      >>> from rvis.models import pretrained
      >>> with mock.patch.dict(os.environ, {"RVIS_CACHE": "/data/rvis"}):
      ...     pretrained.folder().as_posix()
      '/data/rvis'
    """
    own = os.environ.get("RVIS_CACHE")
    if own:
        return pathlib.Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (pathlib.Path(shared) if shared else pathlib.Path.home() / ".cache") / "rvis"


def file(architecture: str) -> pathlib.Path:
    """The published weights of an architecture as a file of the cache, fetched at the first call.

    Args:
      architecture: a name of `PUBLISHED`.

    Raises:
      ValueError: naming `pretrained`, where there is no public file for it; otherwise as `fetch`.
      ImportError: where the file is PyTorch's and PyTorch is not installed.
      OSError: as `fetch`.

    Example:
      >>> from rvis.models import pretrained
      >>> pretrained.file("mnist_cnn")
      Traceback (most recent call last):
      ValueError: pretrained: no public weights are known for 'mnist_cnn', only for ...
    """
    if architecture not in PUBLISHED:
        raise ValueError(
            f"pretrained: no public weights are known for {architecture!r}, only for "
            f"{', '.join(PUBLISHED)}"
        )
    published = PUBLISHED[architecture]
    # Before hundreds of megabytes are fetched that could not be read.
    if not published.name.endswith(".safetensors") and importlib.util.find_spec("torch") is None:
        raise ImportError(
            f"pretrained: the public weights of {architecture!r} are a PyTorch file "
            f"({published.url}), and reading it needs PyTorch: pip install 'rvis[convert]'"
        )
    return fetch(published.url, folder() / published.name, sha256=published.sha256)


def fetch(url: str, path: files.PathLike, *, sha256: str = "") -> pathlib.Path:
    """Fetches `url` to `path`, unless it is there, which then is a whole file or none.

    What has come is kept in `path` + ".part" when the connection is cut or the call interrupted,
    and the next call asks for the rest; a server that cannot give it, or whose file has changed
    since (its ETag tells), sends all of it again. Checked are: the length, where the server tells
    it; the SHA-256, where `sha256` gives it or the server does (Hugging Face: `X-Linked-Etag`); a
    safetensors file's header against its length, and a PyTorch file's first bytes. What fails is
    removed. Processes that want files in one folder wait for each other.

    Args:
      url: an http or https address. From https nothing leads to http.
      path: where the file shall be.
      sha256: the checksum expected, or its first digits, in lower case.

    Returns:
      `path`.

    Raises:
      ValueError: naming `url`, where it is no such address, where the file is not the one expected,
        or larger than 2 GiB.
      ConnectionError: naming `url`, where it cannot be reached, answers with an error (404), or the
        connection is cut.
      OSError: naming `path`, where it cannot be written, as on a full disk.

    Example:
      >>> import pathlib, tempfile
      >>> from rvis.models import pretrained
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "here.safetensors")
      ...     _ = path.write_bytes(b"")
      ...     pretrained.fetch("https://example.org/there.safetensors", path) == path
      True
    """
    path = files.as_path("path", path)
    if path.is_file():
        return path
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"url: an address that begins with https:// was expected, given {url!r}")
    part, note = (path.with_name(path.name + suffix) for suffix in (".part", ".part.json"))
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.parent):
            if not path.is_file():  # another process may have fetched it meanwhile
                told = _download(url, part, note, sha256)
                try:
                    _verify(url, part, path.suffix, sha256 or told)
                except ValueError:
                    _remove(part, note)
                    raise
                os.replace(part, path)
                _remove(note)
    return path


@contextlib.contextmanager
def _writing(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        hint = "; RVIS_CACHE can name another folder"
        raise OSError(
            error.errno or errno.EIO, f"path: {path} could not be written: {reason}{hint}"
        ) from error


@contextlib.contextmanager
def _alone(place: pathlib.Path) -> Iterator[None]:
    """One process at a time, where the system has locks: two must not write to one .part."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(place / ".lock", "wb") as handle:
        with contextlib.suppress(OSError):  # some network disks have none
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _remove(*paths: pathlib.Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows, but never from https to http, and keeps what Hugging Face tells on the way."""

    told = ""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.full_url.startswith("https://") and not newurl.startswith("https://"):
            raise urllib.error.URLError(f"it leads to {newurl}, which is not https")
        self.told = self.told or _checksum(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _checksum(headers: Mapping[str, str]) -> str:
    """The SHA-256 that Hugging Face tells of a large file; empty where there is none."""
    tag = (headers.get("X-Linked-Etag") or "").removeprefix("W/").strip('"').lower()
    return tag if _SHA256.fullmatch(tag) else ""


def _download(url: str, part: pathlib.Path, note: pathlib.Path, sha256: str) -> str:
    """Brings `part` to its full length; the SHA-256 that the server told of it, or ""."""
    have, etag = _kept(url, part, note)
    asked = {"User-Agent": "rvis", "Accept-Encoding": "identity"}
    if have:
        asked |= {"Range": f"bytes={have}-", "If-Range": etag}
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects)
    try:
        answer = opener.open(urllib.request.Request(url, headers=asked), timeout=_PATIENCE)
    except urllib.error.HTTPError as error:
        error.close()
        if have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _again(url, part, note, sha256)
        raise _unreachable(url, part, f"it answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(url, part, getattr(error, "reason", error)) from error
    with answer:
        if answer.status == http.client.PARTIAL_CONTENT and have:
            rest = _RANGE.fullmatch(answer.headers.get("Content-Range") or "")
            if rest is None or int(rest[1]) != have or int(rest[2]) != have + (answer.length or 0):
                return _again(url, part, note, sha256)
        elif answer.status == http.client.OK:
            have = 0
        else:
            raise _unreachable(url, part, f"it answers {answer.status} {answer.reason}")
        told = redirects.told or _checksum(answer.headers)
        if told and not told.startswith(sha256):
            raise _other(url, told, sha256)
        # http.client takes a length that is negative or no number for none at all.
        total = None if answer.length is None else have + answer.length
        _room(url, part.parent, have, total)
        if not have:
            _remove(part, note)
            etag = answer.headers.get("ETag") or ""
            if etag.startswith('"'):  # a weak one does not promise equal bytes
                files.write_json(note, {"url": url, "etag": etag})
        _receive(answer, url, part, have, total)
    return told


def _kept(url: str, part: pathlib.Path, note: pathlib.Path) -> tuple[int, str]:
    """(bytes of an earlier call, the ETag of what they are of): (0, "") where not to be used."""
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["url"] == url and known["etag"].startswith('"'):
            return part.stat().st_size, known["etag"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return 0, ""


def _again(url: str, part: pathlib.Path, note: pathlib.Path, sha256: str) -> str:
    _remove(part, note)
    return _download(url, part, note, sha256)


def _room(url: str, place: pathlib.Path, have: int, total: int | None) -> None:
    if total is None:
        return
    if total > _LARGEST:
        raise ValueError(f"url: {url} announces {total:,} bytes, no file of weights is so large")
    free = shutil.disk_usage(place).free
    if total - have > free:
        reason = f"it needs {total - have:,} bytes and {free:,} are free"
        raise OSError(errno.ENOSPC, reason)


def _receive(
    answer: http.client.HTTPResponse, url: str, part: pathlib.Path, have: int, total: int | None
) -> None:
    bar = tqdm(
        desc=part.stem,
        initial=have,
        total=total,
        unit="B",
        unit_scale=True,
        disable=None,
        leave=False,
    )
    with bar, open(part, "ab" if have else "wb") as kept:
        while True:
            try:
                block = answer.read(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise _cut(url, part, have, total, error) from error
            if not block:
                break
            have += len(block)
            if have > _LARGEST:
                raise ValueError(f"url: {url} does not end, no file of weights is so large")
            kept.write(block)
            bar.update(len(block))
        kept.flush()
        os.fsync(kept.fileno())  # the rename to come must not reach the disk before the bytes
    if total is not None and have != total:
        raise _cut(url, part, have, total, "the connection ended")


def _verify(url: str, part: pathlib.Path, suffix: str, sha256: str) -> None:
    if sha256:
        with open(part, "rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
        if not found.startswith(sha256):
            raise _other(url, found, sha256)
    if suffix != ".safetensors":
        with open(part, "rb") as handle:
            if not handle.read(4).startswith(_TORCH):
                raise ValueError(f"url: {url} gave no PyTorch file, and it is not kept")
    else:
        try:
            with safetensors.safe_open(part, framework="numpy"):
                pass
        except safetensors.SafetensorError as error:
            raise ValueError(
                f"url: {url} gave no whole safetensors file, and it is not kept ({error})"
            ) from error


def _other(url: str, found: str, sha256: str) -> ValueError:
    return ValueError(
        f"url: {url} gave another file than expected, and it is not kept: its SHA-256 is {found}, "
        f"{sha256} was expected"
    )


def _unreachable(url: str, part: pathlib.Path, reason: object) -> ConnectionError:
    return ConnectionError(
        f"url: {url} could not be had: {reason}. Where there is no network, bring that file and "
        f"give weights=PATH, or put it at {part.with_name(part.stem)}"
    )


def _cut(
    url: str, part: pathlib.Path, have: int, total: int | None, reason: object
) -> ConnectionError:
    of = f" of {total:,}" if total is not None else ""
    return ConnectionError(
        f"url: {url} was cut after {have:,}{of} bytes ({reason}); they are kept in {part}, and the "
        "next call asks for the rest"
    )
