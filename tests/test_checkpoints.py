"""A checkpoint comes back whole, or says why not."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import checkpoints

TREE = {"a": jnp.arange(3.0), "key": jax.random.key(3), "step": jnp.int32(7)}


def saved(tmp_path, fingerprint="f"):
    path = tmp_path / "c.npz"
    checkpoints.save(path, TREE, about={"fingerprint": fingerprint, "done": 2})
    return path


def test_round_trip(tmp_path):
    tree, about = checkpoints.load(saved(tmp_path), TREE, expect="f")
    assert about["done"] == 2
    np.testing.assert_array_equal(tree["a"], TREE["a"])
    assert tree["step"].dtype == jnp.int32
    assert jax.random.uniform(tree["key"]) == jax.random.uniform(TREE["key"])


def test_other_work_is_refused(tmp_path):
    with pytest.raises(ValueError, match="other arguments"):
        checkpoints.load(saved(tmp_path), TREE, expect="g")


def test_other_shapes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="other arguments"):
        checkpoints.load(saved(tmp_path), {**TREE, "a": jnp.arange(4.0)}, expect="f")


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_a_truncated_file_is_named(tmp_path, keep):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"checkpoint: .*c\.npz cannot be read"):
        checkpoints.load(path, TREE, expect="f")


def test_a_pickle_is_not_loaded(tmp_path):
    path = tmp_path / "c.npz"
    np.savez(path, about=np.asarray({"fingerprint": "f"}, object))
    with pytest.raises(ValueError, match="cannot be read"):
        checkpoints.load(path, TREE, expect="f")


@pytest.mark.parametrize("change", [{"a": jnp.arange(3.0) + 1e-7}, {"step": jnp.int32(8)}])
def test_fingerprints_tell_bits_apart(change):
    assert checkpoints.fingerprint({**TREE, **change}) != checkpoints.fingerprint(TREE)
    assert checkpoints.fingerprint(dict(TREE)) == checkpoints.fingerprint(TREE)


def test_another_process_gives_the_same_fingerprint():
    code = (
        "import flax.linen as nn\n"
        "from rvis.checkpoints import fingerprint, stable\n"
        "print(fingerprint(stable(nn.Sequential([nn.Conv(3, (3, 3)), nn.relu]))))"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    assert first.stdout == second.stdout != ""
