"""Two lectures in one page: what they claim of networks, drawn and measured on the shipped ones."""

from rvis.gallery.base import Outcome, Part, Section, Verdict
from rvis.gallery.run import make
from rvis.gallery.sections import SECTIONS

__all__ = ["SECTIONS", "Outcome", "Part", "Section", "Verdict", "make"]
