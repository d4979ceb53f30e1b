"""The sections of the gallery, in the order of the lectures."""

from scripts.gallery.base import Section
from scripts.gallery.sections import (
    attribution,
    clip,
    depth,
    diversity,
    dream,
    evolution,
    fields,
    fooling,
    groups,
    inversion,
    manifold,
    matching,
    neighbours,
    noise,
    objectives,
    patches,
    real,
    regularization,
    robust,
    style,
    synthesis,
)

SECTIONS: tuple[Section, ...] = tuple(
    module.SECTION
    for module in (
        real,
        noise,
        fields,
        depth,
        objectives,
        regularization,
        diversity,
        dream,
        patches,
        neighbours,
        inversion,
        clip,
        style,
        attribution,
        groups,
        fooling,
        evolution,
        manifold,
        matching,
        robust,
        synthesis,
    )
)
