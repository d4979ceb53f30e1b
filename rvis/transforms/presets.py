"""Published chains of views."""

from __future__ import annotations

from rvis import checks, gate
from rvis.transforms.moves import Jitter, Noise, Pad, RandomCrop, Rotate, Scale
from rvis.transforms.views import Transform


@gate.public
def lucid(size: int, *, patch: int = 1) -> tuple[Transform, ...]:
    """lucid's default chain, for images of `size` pixels.

    At 128 px: pad 12 in grey, jitter 8, zoom .90 to 1.10 by .02, rotate by one of −10 to 10 degrees
    and five further zeros, jitter 4. Pads and jitters grow with the image (u = size/16: pad 1.5 u,
    jitter u and u/2, rounded), so a 32-px network gets pad 3 and jitters 2 and 1, and one of 224 px
    pad 21 and jitters 14 and 7. The first jitter is at least half a `patch`, the side of what a
    vision transformer cuts its picture into, so that the grid of patches falls on every place.

    Example:
      >>> from rvis import transforms
      >>> transforms.lucid(32)[:2]
      (Pad(pixels=3, fill=0.5), Jitter(pixels=2))

    Reference: tensorflow/lucid, `optvis/transform.py` (`standard_transforms`).
    """
    part = checks.count("size", size) / 128
    return (
        Pad(round(12 * part)),
        Jitter(max(round(8 * part), checks.count("patch", patch) // 2)),
        Scale(tuple(percent / 100 for percent in range(90, 111, 2))),
        Rotate((*range(-10, 11), *(0,) * 5)),
        Jitter(round(4 * part)),
    )


@gate.public
def maco(size: int) -> tuple[Transform, ...]:
    """The views of MACO, for pictures some times larger than the `size` pixels a model is shown.

    Six parts a step, of side N(.275, .0144²) of the picture's and with centres at .5 + .15·N(0, 1),
    and noise of .01, as Horama's code has them for networks of 224 px:

        visualize(model, objective, image="maco", size=4 * size, transforms=transforms.maco(size))

    Example:
      >>> from rvis import transforms
      >>> transforms.maco(224)[0].count
      6

    Reference: Fel et al. 2023, "Unlocking Feature Visualization for Deeper Networks with MAgnitude
      Constrained Optimization", arXiv:2306.06805; serre-lab/Horama, `maco_fv.py`.
    """
    crop = RandomCrop(checks.count("size", size), side=0.275, spread=0.0144, count=6)
    return crop, Noise(0.01)
