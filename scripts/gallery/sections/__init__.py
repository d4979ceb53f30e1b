"""The sections of the gallery, in the order of the lectures."""

from scripts.gallery.base import Section
from scripts.gallery.networks import Cast
from scripts.gallery.sections import (
    attribution,
    clip,
    depth,
    dream,
    evolution,
    fields,
    fooling,
    groups,
    inside,
    inversion,
    neighbours,
    noise,
    patches,
    robust,
    style,
    why,
)

_MODULES = {
    "noise": noise,
    "fields": fields,
    "depth": depth,
    "inside": inside,
    "dream": dream,
    "patches": patches,
    "neighbours": neighbours,
    "inversion": inversion,
    "clip": clip,
    "style": style,
    "attribution": attribution,
    "groups": groups,
    "fooling": fooling,
    "evolution": evolution,
    "why": why,
    "robust": robust,
}
NAMES = tuple(_MODULES)
"""What the sections are chosen by."""


def sections(cast: Cast) -> tuple[Section, ...]:
    """All sections, drawn by these networks."""
    return tuple(module.section(cast) for module in _MODULES.values())
