"""Folders of long work: in use, read-only, gone while it runs, on a full disk."""

from __future__ import annotations

import functools
import shutil
import signal
import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest

import rvis
from rvis import concepts, data, files, gate, training
from rvis.engine import checkpoints, queue
from tests import toys
from tests.test_grammar import EVERY, name

WRITING = [
    (function, argument)
    for function in EVERY
    for argument, check in gate.kinds(function).items()
    if check is gate.KINDS["checkpoint"] and hasattr(function, "__wrapped__")
]
HOLDING = """
import pathlib, sys
from rvis import files
lock = files.Lock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A folder, and the process that works in it."""
    folder = tmp_path_factory.mktemp("held")
    command = [sys.executable, "-c", HOLDING, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == "held\n"
        yield folder, other
        other.kill()


@pytest.mark.parametrize(
    "function", [f for f, argument in WRITING if argument == "checkpoint"], ids=name
)
def test_a_folder_in_use_is_refused_before_anything_else(function, held):
    # Were it let through, arguments would be missing.
    with pytest.raises((ValueError, TypeError), match="^checkpoint: .* in use by another run"):
        function(checkpoint=held[0])


def test_a_kill_lets_a_folder_go(held):
    folder, other = held
    other.send_signal(signal.SIGKILL)
    other.wait()
    with files.alone(folder):
        assert (folder / files.LOCK).exists()
    assert not list(folder.iterdir())


def test_what_a_kill_left_half_written_is_removed(tmp_path):
    half, own = tmp_path / f".{'0a' * 16}.npz", tmp_path / "flight.npz"
    half.write_bytes(b"half")
    own.write_bytes(b"whole")
    with files.alone(tmp_path):
        assert own.exists() and not half.exists()


def test_who_comes_while_a_lock_is_removed_holds_what_the_next_finds(tmp_path, monkeypatch):
    held = [files.Lock(tmp_path)]
    flock = files.fcntl.flock

    def slow(stream, how):
        while held:
            held.pop().remove()  # between the opening and the locking
        flock(stream, how)

    monkeypatch.setattr(files.fcntl, "flock", slow)
    second = files.Lock(tmp_path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="in use"):
        files.Lock(tmp_path)
    second.close()


@pytest.mark.parametrize("inside", ["", "new/folder"])
def test_a_folder_that_is_read_only_is_refused_before_anything_else(sealed, inside):
    with sealed() as folder:
        for function, argument in WRITING:
            told = f"^{argument}: a folder that can be written"
            with pytest.raises((PermissionError, TypeError), match=told):
                function(**{argument: folder / inside})
        with pytest.raises(PermissionError, match="checkpoint: .* cannot be written: Permission"):
            files.Lock(folder / inside)


class Net(nn.Module):
    """A dense layer on mean colours."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(x.mean((1, 2)))


MODEL = toys.pointwise(classes=3)
PICTURES = np.random.default_rng(0).random((6, 6, 8, 3), np.float32)
PIXELS = np.rint(255 * PICTURES).astype(np.uint8)
DATA = data.Dataset(PIXELS, np.arange(6, dtype=np.int32) % 3, ("a", "b", "c"), "noise")
RECIPE = training.Recipe(epochs=3, batch_size=3, crop=0, flip=False)
AUTOENCODER = {"width": 2, "active": 2, "epochs": 3, "batch_size": 8}


def trained(**options):
    variables = Net().init(jax.random.key(0), PICTURES)
    model = rvis.from_linen(Net(), variables, input_shape=(6, 8, 3), classes=DATA.classes)
    return rvis.train(model, DATA, RECIPE, **options).params


# One of each way in which a state is kept.
RUNS = {
    "engine": lambda **o: rvis.visualize(MODEL, [0, 1], steps=3, transforms=(), **o).images,
    "stages": lambda **o: (
        rvis.deepdream(MODEL, PICTURES[0], "relu", octaves=2, scale=1.2, steps=2, **o).images
    ),
    "autoencoder": lambda **o: (
        concepts.train_sae(MODEL, "relu", DATA, **AUTOENCODER, **o).concepts.encode
    ),
    "training": trained,
}


@pytest.fixture(scope="module")
def whole():
    """What runs give that nothing disturbs."""
    return functools.cache(lambda name: RUNS[name](progress=False))


@pytest.fixture
def often(monkeypatch):
    """States are saved after every piece."""
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(queue, "_TURN", 0)


def disturbed(name, whole, folder, callback):
    found = RUNS[name](checkpoint=folder, callback=callback, progress=False)
    jax.tree.map(np.testing.assert_array_equal, found, whole(name))


@pytest.mark.parametrize("name", RUNS)
def test_while_a_run_is_under_way_its_folder_is_its_own(name, whole, tmp_path, often):
    refused = []

    def another(*_):
        with pytest.raises(ValueError, match="in use by another run"):
            files.Lock(tmp_path / "state")
        refused.append(name)

    disturbed(name, whole, tmp_path / "state", another)
    assert len(refused) > 1
    assert not list(tmp_path.rglob(files.LOCK))


@pytest.mark.parametrize("name", RUNS)
def test_a_folder_that_goes_while_a_run_is_under_way_changes_nothing(name, whole, tmp_path, often):
    def removed(*_):
        shutil.rmtree(tmp_path / "state")

    disturbed(name, whole, tmp_path / "state", removed)


@pytest.mark.parametrize("name", RUNS)
def test_a_full_disk_is_named_and_the_run_goes_on_later(name, whole, tmp_path, often):
    resource = pytest.importorskip("resource")
    whole(name)  # lest compiled programs meet the limit
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(
            OSError, match=r"checkpoint: .*npz could not be written: File too large"
        ):
            RUNS[name](checkpoint=tmp_path / "state", progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.rglob("*.npz"))
    disturbed(name, whole, tmp_path / "state", None)
