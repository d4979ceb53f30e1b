"""Pictures of 8 bits: what is saved fools as it was reported."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

from rvis import attacks
from tests.attacks import small

IMAGES = np.round(255 * small.images(10)[0]).astype(np.float32) / np.float32(255)
LABELS = np.asarray(small.network()(IMAGES)).argmax(1)
QUIET = {"progress": False, "quantize": True}
EVERY = {
    "fgsm": {"eps": 0.02},
    "pgd": {"eps": 0.02, "steps": 8},
    "apgd": {"eps": 0.15, "norm": "l2", "steps": 8},
    "apgd l1": {"eps": 0.8, "norm": "l1", "steps": 20},
    "square": {"eps": 0.02, "steps": 40},
    "fab": {"norm": "l2", "steps": 8},
    "fmn": {"steps": 12, "step_size": 0.3},
    "ddn": {"steps": 12, "initial": 0.2},
}


def run(name, **options):
    attack = getattr(attacks, name.split()[0])
    return attack(small.network(), IMAGES, LABELS, **{**EVERY[name], **options})


# Pictures are rounded as PGD's (FGSM) or as FAB's (FMN, DDN).
SELDOM = ("fgsm", "fmn", "ddn")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SELDOM)) for name in EVERY]
)
def test_the_saved_pictures_fool_as_reported(name, tmp_path):
    found = run(name, **QUIET)
    paths = sorted((found.save(tmp_path) / "images").iterdir())
    read = np.stack([np.asarray(PIL.Image.open(path)) for path in paths])
    again = read.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(again, found.images)
    fooled = np.asarray(small.network()(again)).argmax(1) != LABELS
    np.testing.assert_array_equal(fooled, found.success)
    np.testing.assert_array_equal(found.rounded, found.success)
    assert found.success.any()
    eps = EVERY[name].get("eps", np.inf)
    assert (found.distances <= eps * (1 + 1e-6)).all()
    assert found.config["quantize"] is True


def test_otherwise_it_is_told_what_rounding_undoes():
    found = run("fmn", steps=40, progress=False)
    levels = np.round(255 * found.images) / np.float32(255)
    fooled = np.asarray(small.network()(levels)).argmax(1) != LABELS
    np.testing.assert_array_equal(found.rounded, fooled)
    assert found.success.all() and not fooled.all()
    assert run("fmn", steps=40, **QUIET).success.all()


def test_steps_shorter_than_a_level_add_up():
    found = run("pgd", eps=2.5 / 255, steps=20, step_size=0.3 / 255, **QUIET)
    assert np.abs(255 * (found.images - IMAGES)).max() == pytest.approx(2, abs=1e-3)


def test_other_images_are_refused():
    with pytest.raises(ValueError, match="^quantize: "):
        attacks.pgd(small.network(), small.images(2)[0], 0, eps=0.1, **QUIET)
