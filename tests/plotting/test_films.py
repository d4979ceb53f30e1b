"""Animated files: their frames, their times, and what is refused."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

from rvis.plotting import films, grids

FRAMES = [grids.to_pil(np.full((6, 8, 3), level)) for level in (0.0, 0.5, 1.0)]


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_frames_come_back(tmp_path, suffix):
    films.film(FRAMES, tmp_path / f"film{suffix}", rate=10)
    with PIL.Image.open(tmp_path / f"film{suffix}") as film:
        assert film.n_frames == 3
        levels, times = [], []
        for i in range(3):
            film.seek(i)
            film.load()
            levels.append(film.convert("RGB").getpixel((4, 3))[0])
            times.append(film.info["duration"])
    assert levels == [0, 128, 255]
    assert times[:2] == [100, 100] and times[2] == 1100


@pytest.mark.parametrize(
    ("frames", "options", "error", "message"),
    [
        ([], {}, ValueError, "frames: at least one"),
        ([1], {}, TypeError, "frames: PIL pictures.*int"),
        ([*FRAMES, FRAMES[0].resize((3, 3))], {}, ValueError, "frames: .*one size.*3x3"),
        (FRAMES, {"path": "film.mp4"}, ValueError, r"path: a name ending in \.webp or \.gif"),
        (FRAMES, {"rate": 0}, ValueError, "rate: "),
    ],
)
def test_refused(tmp_path, frames, options, error, message):
    path = tmp_path / options.pop("path", "film.gif")
    with pytest.raises(error, match=message):
        films.film(frames, path, **options)
    assert not path.exists()
