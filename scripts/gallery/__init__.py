"""Two lectures in one page: what they claim of networks, drawn on real ones and measured."""

from scripts.gallery.base import Outcome, Part, Section, Verdict
from scripts.gallery.run import make
from scripts.gallery.sections import NAMES, sections

__all__ = ["NAMES", "Outcome", "Part", "Section", "Verdict", "make", "sections"]
