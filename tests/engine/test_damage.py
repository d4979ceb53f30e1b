"""A checkpoint that was damaged is refused by name, or the run goes on to the right bits."""

from __future__ import annotations

import io
import json
import zipfile

import jax
import numpy as np
import pytest

from rvis.engine import checkpoints, queue
from tests.engine.test_queue import Interrupted, count

FLIGHT, LEFT = "flight.npz", "finished000000.npz"


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A folder of a run that Ctrl-C ended: some examples have left, some are on their way."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(queue, "tqdm", Interrupted(7))
        patched.setattr(queue, "_TURN", 0)
        patched.setattr(checkpoints, "SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            work(folder)
    files = {path.name: path.read_bytes() for path in folder.glob("*.npz")}
    assert {FLIGHT, LEFT} <= set(files)
    return files


@pytest.fixture(scope="module")
def whole():
    return work(None)


def work(folder):
    return count(piece=2, pixels=2**20, checkpoint=folder)


def entries(content):
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def packed(arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def card(**changes):
    """What changes a file's card, by name: a value, or a function of the old one."""

    def changed(content):
        arrays = entries(content)
        about = json.loads(str(arrays["card"]))
        about |= {k: v(about[k]) if callable(v) else v for k, v in changes.items()}
        return packed(arrays | {"card": np.asarray(json.dumps(about))})

    return changed


def leaf(change, number=0):
    """What changes one array of the first example."""

    def changed(content):
        arrays = entries(content)
        name = sorted(name for name in arrays if name != "card")[number]
        return packed(arrays | {name: change(arrays[name])})

    return changed


def first(change):
    """What changes [number, steps made, sizes] of the first example."""
    return card(examples=lambda examples: [change(*examples[0]), *examples[1:]])


def without(*names):
    return lambda content: packed({k: v for k, v in entries(content).items() if k not in names})


def bomb(content):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("card.npy", bytes(2**27))
    return stream.getvalue()


DAMAGE = {
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "half": lambda content: content[: len(content) // 2],
    "all but a byte": lambda content: content[:-1],
    "without its directory": lambda content: content[:-80],
    "text": lambda content: b"not a checkpoint",
    "zeros": lambda content: bytes(len(content)),
    "an array": lambda content: leaf(lambda a: a)(content)[30:],
    "twice": lambda content: content[: len(content) // 2] + content,
    "a bomb": bomb,
    "no card": without("card"),
    "no array": lambda content: packed({"card": entries(content)["card"]}),
    "no JSON": lambda content: packed(entries(content) | {"card": np.asarray("{")}),
    "a list": lambda content: packed(entries(content) | {"card": np.asarray("[]")}),
    "other work": card(fingerprint="0" * 64),
    "no fingerprint": card(fingerprint=None),
    "a pickle": lambda content: packed(entries(content) | {"card": np.asarray({1: 2}, object)}),
    "more files": card(files=9),
    "no number of files": card(files="many"),
    "examples of no kind": card(examples=[3]),
    "no such example": first(lambda number, *rest: [99, *rest]),
    "a negative example": first(lambda number, *rest: [-1, *rest]),
    "an example of no kind": first(lambda number, *rest: ["a", *rest]),
    "an example twice": card(examples=lambda examples: [examples[0], *examples]),
    "too many steps": first(lambda number, made, sizes: [number, made + 100, sizes]),
    "negative steps": first(lambda number, made, sizes: [number, -1, sizes]),
    "too many leaves": first(lambda number, made, sizes: [number, made, sizes | {"leaves": 5}]),
    "too few leaves": first(lambda number, made, sizes: [number, made, sizes | {"leaves": 0}]),
    "another shape": leaf(lambda array: np.zeros((*array.shape, 2), array.dtype), 1),
    "another type": leaf(lambda array: array.astype("U8"), 1),
    "an unknown type": card(dtypes={"0.leaves.0": "float3"}),
}


@pytest.mark.parametrize("name", [FLIGHT, LEFT])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_or_without_effect(interrupted, whole, tmp_path, damage, name):
    resumed(interrupted | {name: DAMAGE[damage](interrupted[name])}, whole, tmp_path)


@pytest.mark.parametrize("name", [FLIGHT, LEFT])
def test_a_flipped_bit_is_named_or_without_effect(interrupted, whole, tmp_path, name):
    content = interrupted[name]
    for number in range(40):
        place = (number * 7919) % len(content)
        flipped = bytearray(content)
        flipped[place] ^= 1 << number % 8
        resumed(interrupted | {name: bytes(flipped)}, whole, tmp_path / str(number))


def test_a_missing_file_is_named(interrupted, whole, tmp_path):
    resumed({FLIGHT: interrupted[FLIGHT]}, whole, tmp_path)


def resumed(files, whole, folder):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        result = work(folder)
    except ValueError as error:
        assert str(error).startswith("checkpoint: "), error
        assert {path.name for path in folder.glob("*.npz")} == set(files), "something was deleted"
    else:
        jax.tree.map(np.testing.assert_array_equal, result, whole)
