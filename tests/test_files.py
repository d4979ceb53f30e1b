"""Files are whole or absent, and a failure names the path and the reason."""

from __future__ import annotations

import errno
import json
import os
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from rvis import files


def test_atomic_replaces_only_at_the_end(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with files.atomic(target) as beside:
        beside.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_atomic_gives_a_sibling_of_the_same_suffix(tmp_path: pathlib.Path) -> None:
    with files.atomic(tmp_path / "a.npz") as beside:
        beside.touch()
        assert (beside.parent, beside.suffix) == (tmp_path, ".npz")
        assert beside.name != "a.npz"


def test_atomic_makes_parent_folders(tmp_path: pathlib.Path) -> None:
    files.write_text(tmp_path / "b" / "c" / "a.txt", "x")
    assert (tmp_path / "b" / "c" / "a.txt").read_text() == "x"


@pytest.mark.parametrize("failure", [RuntimeError("no"), KeyboardInterrupt(), OSError(28, "full")])
def test_a_failing_block_leaves_the_folder_as_it_was(
    tmp_path: pathlib.Path, failure: BaseException
) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(type(failure)), files.atomic(target) as beside:
        beside.write_text("half")
        raise failure
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert target.read_text() == "old"


def test_a_full_disk_names_path_and_reason(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "a.txt"
    with pytest.raises(OSError, match=r"a\.txt.*No space left") as caught, files.atomic(target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.errno == errno.ENOSPC


def test_an_error_without_a_number_keeps_its_words(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError, match=r"a\.npy.*5 requested, 0 written"):
        with files.atomic(tmp_path / "a.npy"):
            raise OSError("5 requested, 0 written")


@pytest.mark.parametrize("below", ["file/a.txt", "file/deep/a.txt"])
def test_a_parent_that_is_a_file_is_named(tmp_path: pathlib.Path, below: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"path: .*a\.txt could not be written: (File|Not a dir)"):
        files.write_text(tmp_path / below, "x")
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_folder_in_the_way_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError, match=r"path: .*a could not be written"):
        files.write_text(tmp_path / "a", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_no_permission_is_named(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write anywhere")
    with pytest.raises(PermissionError, match=r"path: .*a\.txt could not be written"):
        files.write_text(folder / "a.txt", "x")


def test_a_block_that_writes_nothing_is_told_so(tmp_path: pathlib.Path) -> None:
    with (
        pytest.raises(OSError, match=r"a\.txt.*nothing was written"),
        files.atomic(tmp_path / "a.txt"),
    ):
        pass


def test_an_error_about_another_file_passes_as_it_is(tmp_path: pathlib.Path) -> None:
    other = tmp_path / "other.txt"
    with pytest.raises(FileNotFoundError) as caught, files.atomic(tmp_path / "a.txt"):
        other.read_text()
    assert caught.value.filename == str(other)


def test_text_is_utf8(tmp_path: pathlib.Path) -> None:
    files.write_text(tmp_path / "a.txt", "ε\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xce\xb5\n"


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ({"b": 1, "a": (2, None)}, {"b": 1, "a": [2, None]}),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.arange(4, dtype=np.uint8).reshape(2, 2), [[0, 1], [2, 3]]),
        ({"x": [jnp.float32(0.25), jnp.arange(3)]}, {"x": [0.25, [0, 1, 2]]}),
        (jnp.ones(2, jnp.bfloat16), [1.0, 1.0]),
    ],
)
def test_json_reads_back(tmp_path: pathlib.Path, value: object, read: object) -> None:
    files.write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text()) == read


def test_json_keeps_the_order_of_keys_and_indents_by_one(tmp_path: pathlib.Path) -> None:
    files.write_json(tmp_path / "a.json", {"b": 1, "a": 2})
    assert (tmp_path / "a.json").read_text() == '{\n "b": 1,\n "a": 2\n}\n'


@pytest.mark.parametrize("value", [object(), {"x": {1, 2}}, np.array([1j]), np.array([object()])])
def test_json_refuses_what_it_cannot_hold(tmp_path: pathlib.Path, value: object) -> None:
    with pytest.raises(TypeError, match=r"value: "):
        files.write_json(tmp_path / "a.json", value)
    assert not list(tmp_path.iterdir())


def test_json_refuses_what_holds_itself(tmp_path: pathlib.Path) -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(ValueError, match=r"value: "):
        files.write_json(tmp_path / "a.json", value)


def test_what_is_no_path_or_no_text_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(TypeError, match=r"path: .* given 3"):
        files.write_text(3, "x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"text: .* given bytes"):
        files.write_text(tmp_path / "a", b"x")  # type: ignore[arg-type]
