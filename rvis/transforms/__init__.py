"""Random views of an image, so that what is optimised does not hang on single pixels."""

from rvis.transforms.looks import Blur, Noise
from rvis.transforms.moves import Crop, Flip, Jitter, Pad, RandomCrop, Roll, Rotate, Scale
from rvis.transforms.presets import distill, lucid, maco
from rvis.transforms.views import Transform, apply, draws, frame

__all__ = [
    "Blur",
    "Crop",
    "Flip",
    "Jitter",
    "Noise",
    "Pad",
    "RandomCrop",
    "Roll",
    "Rotate",
    "Scale",
    "Transform",
    "apply",
    "distill",
    "draws",
    "frame",
    "lucid",
    "maco",
]
