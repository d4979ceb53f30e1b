"""One robust classifier makes and changes images: generation, inpainting, translation and more."""

from rvis.synthesis.climb import Synthesis
from rvis.synthesis.seeds import Seeds, fit, load
from rvis.synthesis.tasks import generate, inpaint, paint, sketch, super_resolve, translate

__all__ = [
    "Seeds",
    "Synthesis",
    "fit",
    "generate",
    "inpaint",
    "load",
    "paint",
    "sketch",
    "super_resolve",
    "translate",
]
