"""Published chains of views."""

from __future__ import annotations

from rvis import checks
from rvis.transforms.looks import Noise
from rvis.transforms.moves import Crop, Jitter, Pad, RandomCrop, Rotate, Scale
from rvis.transforms.views import Transform


def lucid(size: int) -> tuple[Transform, ...]:
    """lucid's default chain, for images of `size` pixels.

    At 128 px: pad 12 in grey, jitter 8, zoom .90 to 1.10 by .02, rotate by one of −10 to 10 degrees
    and five further zeros, jitter 4. Pads and jitters shrink with smaller images (u = size/16: pad
    1.5 u, jitter u and u/2, rounded), so a 32-px network gets pad 3 and jitters 2 and 1; larger
    ones keep the numbers of 128 px.

    Jitter n is ±n pixels here; lucid's own crops n pixels at random, which is ±n/2.

    Raises:
      TypeError: naming `size`, for anything but an int.
      ValueError: naming it, below 1.

    Example:
      >>> from rvis import transforms
      >>> transforms.lucid(32)[:2]
      (Pad(pixels=3, fill=0.5), Jitter(pixels=2))

    Reference: tensorflow/lucid, `optvis/transform.py` (`standard_transforms`).
    """
    part = min(1, checks.count("size", size) / 128)
    return (
        Pad(round(12 * part)),
        Jitter(round(8 * part)),
        Scale(tuple(percent / 100 for percent in range(90, 111, 2))),
        Rotate((*range(-10, 11), *(0,) * 5)),
        Jitter(round(4 * part)),
    )


def distill(size: int) -> tuple[Transform, ...]:
    """The chain of the article "Feature Visualization", for images of `size` pixels.

    At 224 px: pad 16 in grey, jitter 16, zoom by 1, .975, 1.025, .95 or 1.05, rotate by −5 to 5
    degrees, jitter 8, crop the padding. Pads and jitters shrink in proportion with smaller images,
    so a 32-px network gets pad 2 and jitters 2 and 1; larger ones keep the numbers of 224 px.

    Jitter n is ±n pixels here; the article's code crops n pixels at random, which is ±n/2.

    Raises:
      TypeError: naming `size`, for anything but an int.
      ValueError: naming it, below 1.

    Example:
      >>> from rvis import transforms
      >>> transforms.distill(224)[2]
      Scale(factors=(1.0, 0.975, 1.025, 0.95, 1.05))

    Reference: Olah, Mordvintsev & Schubert, "Feature Visualization", Distill 2017, appendix.
    """
    part = min(1, checks.count("size", size) / 224)
    return (
        Pad(round(16 * part)),
        Jitter(round(16 * part)),
        Scale((1, 0.975, 1.025, 0.95, 1.05)),
        Rotate(tuple(range(-5, 6))),
        Jitter(round(8 * part)),
        Crop(round(16 * part)),
    )


def maco(size: int) -> tuple[Transform, ...]:
    """The views of MACO, for pictures some times larger than the `size` pixels a model is shown.

    Six parts a step, of side .25 to .3 of the picture's (.275 with the same standard deviation) and
    with centres at .5 + .15·N(0, 1), and noise of .01: Horama's code, for pixels of 0 to 1. It
    draws 1280 px for networks of 224:

        visualize(model, objective, image="maco", size=4 * size, transforms=transforms.maco(size))

    Xplique's code lets the side fall, and draws 512 px with 32 parts a step:
    `(RandomCrop(size, side=0.5, to=0.05, steps=256, count=32), Noise(0.042))`. Networks of 32 px
    see too little in parts that small.

    Raises:
      TypeError: naming `size`, for anything but an int.
      ValueError: naming it, below 1.

    Example:
      >>> from rvis import transforms
      >>> transforms.maco(224)[0].count
      6

    Reference: Fel et al. 2023, "Unlocking Feature Visualization for Deeper Networks with MAgnitude
      Constrained Optimization", arXiv:2306.06805; serre-lab/Horama, `maco_fv.py`;
      deel-ai/xplique, `features_visualizations/maco.py`.
    """
    crop = RandomCrop(checks.count("size", size), side=0.275, spread=0.0144, count=6)
    return crop, Noise(0.01)
