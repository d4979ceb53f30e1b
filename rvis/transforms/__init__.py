"""Random views of an image, so that what is optimised does not hang on single pixels."""

from rvis.transforms.moves import Jitter, Noise, Pad, RandomCrop, Roll, Rotate, Scale
from rvis.transforms.presets import lucid, maco
from rvis.transforms.views import Transform, apply, draws, frame

__all__ = [
    "Jitter",
    "Noise",
    "Pad",
    "RandomCrop",
    "Roll",
    "Rotate",
    "Scale",
    "Transform",
    "apply",
    "draws",
    "frame",
    "lucid",
    "maco",
]
