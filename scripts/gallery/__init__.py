"""Two lectures in one page: what they claim of networks, drawn and measured on the shipped ones."""

from scripts.gallery.base import Outcome, Part, Section, Verdict
from scripts.gallery.run import make
from scripts.gallery.sections import SECTIONS

__all__ = ["SECTIONS", "Outcome", "Part", "Section", "Verdict", "make"]
