"""Directions that a layer uses: groups, dictionaries, their pictures, maps and effects."""

from rvis.concepts import groups
from rvis.concepts.cav import TCAV, tcav
from rvis.concepts.dictionary import Concepts, Decoder, Encoder, attach, channels
from rvis.concepts.influence import Effects, Relevance, effects, relevance
from rvis.concepts.page import label, report
from rvis.concepts.sae import Trained, train_sae
from rvis.concepts.saved import load, save
from rvis.concepts.scores import Measures, compare, measure
from rvis.concepts.source import fit

__all__ = [
    "TCAV",
    "Concepts",
    "Decoder",
    "Effects",
    "Encoder",
    "Measures",
    "Relevance",
    "Trained",
    "attach",
    "channels",
    "compare",
    "effects",
    "fit",
    "groups",
    "label",
    "load",
    "measure",
    "relevance",
    "report",
    "save",
    "tcav",
    "train_sae",
]
