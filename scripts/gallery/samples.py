"""A few test images of each data set, shipped with rvis, so that there is something to look at."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
from PIL import Image

from rvis import checks, data

NAMES = ("cifar10", "mnist", "tiny_imagenet_animals")
"""The data sets: 800, 300 and 204 images, equally many of every class, sorted by class."""


@functools.cache
def load(name: str) -> data.Dataset:
    """Images that no shipped network was trained on.

    They are the first of every class of the test split (of Tiny ImageNet: of the validation split).

    Args:
      name: one of `NAMES`.

    Raises:
      ValueError: naming `name`, for any other.

    Example:
      >>> from scripts.gallery import samples
      >>> few = samples.load("mnist")
      >>> few.images.shape, few.classes[few.labels[0]]
      ((300, 28, 28, 1), '0')

    Sources: Krizhevsky 2009 (CIFAR-10); LeCun et al. 1998 (MNIST); Deng et al. 2009, of ImageNet,
      for non-commercial research and education.
    """
    checks.choice("name", name, NAMES)
    place = Path(__file__).with_name("data") / f"{name}.zip"
    return data.load(place, "test")


@functools.cache
def enlarged(name: str, side: int) -> data.Dataset:
    """The same images, brought to so many pixels a side."""
    few = load(name)
    large = [
        np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
        for image in few.images
    ]
    return dataclasses.replace(few, images=np.stack(large))
