"""A checkpoint comes back whole, or says why not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis.engine import checkpoints

TREE = {"a": jnp.arange(3.0), "key": jax.random.key(3), "step": jnp.int32(7)}


def saved(tmp_path, fingerprint="f"):
    path = tmp_path / "c.npz"
    checkpoints.save(path, TREE, fingerprint=fingerprint)
    return path


def test_round_trip(tmp_path):
    tree = checkpoints.load(saved(tmp_path), TREE, fingerprint="f")
    np.testing.assert_array_equal(tree["a"], TREE["a"])
    assert tree["step"].dtype == jnp.int32
    assert jax.random.uniform(tree["key"]) == jax.random.uniform(TREE["key"])


def test_other_work_is_refused(tmp_path):
    with pytest.raises(ValueError, match="other arguments"):
        checkpoints.load(saved(tmp_path), TREE, fingerprint="g")


def test_other_shapes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="other arguments"):
        checkpoints.load(saved(tmp_path), {**TREE, "a": jnp.arange(4.0)}, fingerprint="f")


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_a_truncated_file_is_named(tmp_path, keep):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"checkpoint: .*c\.npz cannot be read"):
        checkpoints.load(path, TREE, fingerprint="f")


def test_a_file_that_another_has_written_anew_is_named(tmp_path):
    """Zip's own sums are right, the digest of what was saved is not."""
    path = tmp_path / "work.npz"
    checkpoints.save(path, (np.arange(3.0),), fingerprint="a")
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["leaf0"][1] = 5
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="it is not as it was written"):
        checkpoints.load(path, None, fingerprint="a")


def test_a_pickle_is_not_loaded(tmp_path):
    path = tmp_path / "c.npz"
    np.savez(path, card=np.asarray({"fingerprint": "f"}, object))
    with pytest.raises(ValueError, match="cannot be read"):
        checkpoints.load(path, TREE, fingerprint="f")


@pytest.mark.parametrize("change", [{"a": jnp.arange(3.0) + 1e-7}, {"step": jnp.int32(8)}])
def test_fingerprints_tell_bits_apart(change):
    assert checkpoints.fingerprint({**TREE, **change}) != checkpoints.fingerprint(TREE)
    assert checkpoints.fingerprint(dict(TREE)) == checkpoints.fingerprint(TREE)
